#include "exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "../pieces.hpp"
#include "call.hpp"

namespace plait {
namespace {

constexpr std::uint64_t magic = 0x504c41495430314d;  // no likely payload begins so
constexpr int tag = 0;

}  // namespace

MessageStream::MessageStream(Message message, MessageHeader header, Flight::Direction direction)
    : message_(std::move(message)),
      header_(header),
      expected_(header),
      direction_(direction),
      total_bytes_(message_.bytes()) {
  header_.magic = expected_.magic = magic;
  header_.block = expected_.block = message_.block;
  header_.bytes = expected_.bytes = total_bytes_;
  if (direction == Flight::Direction::receive) header_ = {};
}

void MessageStream::post(MPI_Comm communicator, std::size_t chunk_bytes, std::vector<MPI_Request>& requests,
                         std::vector<std::pair<MessageStream*, std::size_t>>& owners) {
  std::size_t begin = 0;
  do {
    std::size_t const length = std::min<std::size_t>(chunk_bytes, total_bytes_ - begin);
    std::vector<StridedRegion> pieces = cut(message_.pieces, begin, length);
    if (begin == 0) pieces.insert(pieces.begin(), {reinterpret_cast<std::byte*>(&header_), sizeof header_});
    owners.emplace_back(this, chunk_sizes_.size());
    chunk_sizes_.push_back(length + (begin == 0 ? sizeof header_ : 0));
    ++open_chunks_;
    post_chunk(communicator, pieces, requests.emplace_back(MPI_REQUEST_NULL));
    begin += length;
  } while (begin < total_bytes_);
}

void MessageStream::post_chunk(MPI_Comm communicator, std::vector<StridedRegion> const& pieces,
                               MPI_Request& request) const {
  // Scattered rows go as one message: a datatype of absolute addresses.
  std::vector<int> const ones(pieces.size(), 1);
  std::vector<MPI_Aint> addresses;
  std::vector<MPI_Datatype> types;
  for (StridedRegion const& piece : pieces) {
    check_mpi(MPI_Get_address(piece.data, &addresses.emplace_back()));
    check_mpi(MPI_Type_create_hvector(static_cast<int>(piece.rows), static_cast<int>(piece.width),
                                      static_cast<MPI_Aint>(piece.pitch), MPI_BYTE,
                                      &types.emplace_back(MPI_DATATYPE_NULL)));
  }
  MPI_Datatype type = MPI_DATATYPE_NULL;
  check_mpi(MPI_Type_create_struct(static_cast<int>(pieces.size()), ones.data(), addresses.data(),
                                   types.data(), &type));
  for (MPI_Datatype& part : types) check_mpi(MPI_Type_free(&part));
  check_mpi(MPI_Type_commit(&type));
  if (direction_ == Flight::Direction::send) {
    check_mpi(MPI_Isend(MPI_BOTTOM, 1, type, message_.peer, tag, communicator, &request));
  } else {
    check_mpi(MPI_Irecv(MPI_BOTTOM, 1, type, message_.peer, tag, communicator, &request));
  }
  check_mpi(MPI_Type_free(&type));
}

void MessageStream::complete(std::size_t chunk, MPI_Status const& status, Naming const& naming) {
  std::size_t const planned = chunk_size(chunk);
  if (direction_ == Flight::Direction::receive) {
    auto const wrong = [&](std::string const& what) {
      throw CommError(fmt::format("{}: {}", describe(naming), what));
    };
    if (status.MPI_ERROR == MPI_ERR_TRUNCATE)
      wrong(fmt::format("the message is longer than {} bytes", planned));
    check_mpi(status.MPI_ERROR);
    int arrived = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &arrived));
    if (chunk == 0 && static_cast<std::size_t>(arrived) >= sizeof header_ && header_ != expected_) {
      if (header_.magic != magic) wrong("the message is not Plait's");
      wrong(fmt::format(
          "the message is number {} from there, {} in round {}, {} bytes; expected number {} in round "
          "{}, {} bytes",
          header_.sequence, naming.block(header_.block), header_.round, header_.bytes, expected_.sequence,
          expected_.round, expected_.bytes));
    }
    if (static_cast<std::size_t>(arrived) != planned) {
      wrong(fmt::format("{} bytes arrived where {} were due", arrived, planned));
    }
  } else {
    check_mpi(status.MPI_ERROR);
  }
  moved_bytes_ += planned - (chunk == 0 ? sizeof header_ : 0);
  if (--open_chunks_ == 0) end_ = std::chrono::steady_clock::now();
}

std::string MessageStream::describe(Naming const& naming) const {
  bool const sends = direction_ == Flight::Direction::send;
  return fmt::format("{} {} {} {} ({} of {} bytes outstanding)", sends ? "sending" : "receiving",
                     naming.block(message_.block), sends ? "to" : "from", naming.peer(message_.peer),
                     total_bytes_ - moved_bytes_, total_bytes_);
}

ExchangeOperation::ExchangeOperation(World::CommThread& thread, MPI_Comm communicator,
                                     std::size_t chunk_bytes, Exchange exchange, Sequences& sequences,
                                     Naming naming, std::shared_ptr<void> keep_alive)
    : thread_(thread),
      communicator_(communicator),
      chunk_bytes_(chunk_bytes),
      round_(exchange.round),
      naming_(std::move(naming)),
      keep_alive_(std::move(keep_alive)),
      patience_(thread.liveness()) {
  auto const header = [&](std::vector<std::uint64_t>& next, int peer) {
    return MessageHeader{.round = exchange.round, .sequence = next[static_cast<std::size_t>(peer)]++};
  };
  for (Message& message : exchange.receives) {
    MessageHeader const expected = header(sequences.received, message.peer);
    receives_.emplace_back(std::move(message), expected, Flight::Direction::receive);
  }
  for (Message& message : exchange.sends) {
    MessageHeader const announced = header(sequences.sent, message.peer);
    sends_.emplace_back(std::move(message), announced, Flight::Direction::send);
  }
}

void ExchangeOperation::start() {
  started_ = true;
  start_ = std::chrono::steady_clock::now();
  patience_.progress();
  auto const post = [&](MessageStream& stream) {
    stream.post(communicator_, chunk_bytes_, requests_, owners_);
  };
  std::ranges::for_each(receives_, post);
  // What goes to this rank itself MPI copies at once: after all that can travel meanwhile.
  for (bool const own : {false, true}) {
    for (MessageStream& stream : sends_) {
      if ((stream.message().peer == thread_.rank()) == own) post(stream);
    }
  }
}

Operation::Status ExchangeOperation::poll() {
  if (!started_) start();
  bool const moved = test();
  auto const all_done = [](std::vector<MessageStream> const& streams) {
    return std::ranges::all_of(streams, &MessageStream::done);
  };
  if (all_done(receives_) && all_done(sends_)) return Status::done;
  if (!moved) {
    give_up_on_lost();
    return Status::idle;
  }
  patience_.progress();
  return Status::moved;
}

bool ExchangeOperation::test() {
  int count = 0;
  std::vector<int> indices(requests_.size());
  std::vector<MPI_Status> statuses(requests_.size());
  int const result = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                  indices.data(), statuses.data());
  if (result != MPI_ERR_IN_STATUS) check_mpi(result);
  if (count == MPI_UNDEFINED || count == 0) return false;
  for (int i = 0; i < count; ++i) {
    auto const& [stream, chunk] = owners_[static_cast<std::size_t>(indices[static_cast<std::size_t>(i)])];
    MPI_Status& status = statuses[static_cast<std::size_t>(i)];
    if (result != MPI_ERR_IN_STATUS) status.MPI_ERROR = MPI_SUCCESS;  // only set when some request failed
    try {
      stream->complete(chunk, status, naming_);
    } catch (CommError const& error) {
      throw CommError(fmt::format("{}: {}", where(), error.what()));
    }
  }
  return true;
}

std::string ExchangeOperation::where() const {
  return fmt::format("{}, round {}", naming_.peer(thread_.rank()), round_);
}

void ExchangeOperation::give_up_on_lost() {
  std::vector<int> peers;
  for (auto const* streams : {&receives_, &sends_}) {
    for (MessageStream const& stream : *streams) {
      if (!stream.done()) peers.push_back(stream.message().peer);
    }
  }
  auto const lost = patience_.lost(peers);
  if (!lost) return;
  std::string open;
  for (auto const* streams : {&receives_, &sends_}) {
    for (MessageStream const& stream : *streams) {
      if (stream.done() || stream.message().peer != lost->peer) continue;
      open += fmt::format("{}{}", open.empty() ? "" : "; ", stream.describe(naming_));
    }
  }
  throw PeerLost(fmt::format("{}: {} {}, while {}", where(), naming_.peer(lost->peer),
                             lost->describe("moved its part"), open));
}

std::vector<Flight> ExchangeOperation::flights() const {
  std::vector<Flight> all;
  for (auto const* streams : {&sends_, &receives_}) {
    for (std::size_t i = 0; i < streams->size(); ++i) {
      all.push_back({.direction = (*streams)[i].direction(),
                     .round = round_,
                     .message = i,
                     .start = start_,
                     .end = (*streams)[i].end()});
    }
  }
  return all;
}

void ExchangeOperation::add_traffic(Traffic& traffic) const {
  for (MessageStream const& stream : sends_) {
    traffic.sent[static_cast<std::size_t>(stream.message().peer)] += stream.moved_bytes();
  }
  for (MessageStream const& stream : receives_) {
    traffic.received[static_cast<std::size_t>(stream.message().peer)] += stream.moved_bytes();
  }
}

}  // namespace plait
