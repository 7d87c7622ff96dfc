#include "gathering.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "call.hpp"

namespace plait {
namespace {

constexpr int tag = 1;  // a transport's messages, on the same communicator, have another

std::vector<std::byte> pack(std::vector<std::vector<std::byte>> const& parts) {
  std::vector<std::byte> packed;
  for (auto const& part : parts) {
    std::uint64_t const length = part.size();
    auto const* const bytes = reinterpret_cast<std::byte const*>(&length);
    packed.insert(packed.end(), bytes, bytes + sizeof length);
    packed.insert(packed.end(), part.begin(), part.end());
  }
  return packed;
}

std::vector<std::vector<std::byte>> unpack(std::span<std::byte const> packed) {
  std::vector<std::vector<std::byte>> parts;
  while (!packed.empty()) {
    std::uint64_t length = 0;
    if (packed.size() < sizeof length) throw CommError("a gathered message is cut short");
    std::memcpy(&length, packed.data(), sizeof length);
    packed = packed.subspan(sizeof length);
    if (packed.size() < length) throw CommError("a gathered message is cut short");
    parts.emplace_back(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(length));
    packed = packed.subspan(length);
  }
  return parts;
}

}  // namespace

Gathering::Gathering(World::CommThread& thread, MPI_Comm communicator, std::vector<std::byte> mine,
                     std::string what, std::function<std::string(int)> describe_peer)
    : thread_(thread),
      communicator_(communicator),
      what_(std::move(what)),
      describe_peer_(std::move(describe_peer)),
      patience_(thread.liveness()),
      parts_(static_cast<std::size_t>(thread.size())) {
  parts_[static_cast<std::size_t>(thread.rank())] = std::move(mine);
}

Operation::Status Gathering::poll() {
  if (!started_) start();
  Status const status = thread_.rank() == 0 ? poll_root() : poll_leaf();
  if (status == Status::moved) patience_.progress();
  if (status == Status::idle) give_up_on_lost();
  return status;
}

void Gathering::start() {
  started_ = true;
  if (thread_.rank() == 0) {
    missing_.resize(parts_.size() - 1);
    std::iota(missing_.begin(), missing_.end(), 1);
  } else {
    missing_ = {0};
    send(0, parts_[static_cast<std::size_t>(thread_.rank())]);
  }
}

void Gathering::send(int peer, std::vector<std::byte> const& bytes) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw CommError(fmt::format("{}: {} bytes are too many to gather", what_, bytes.size()));
  }
  check_mpi(MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, peer, tag, communicator_,
                      &sends_.emplace_back(MPI_REQUEST_NULL)));
}

bool Gathering::receive(int peer, std::vector<std::byte>& into) {
  int arrived = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  check_mpi(MPI_Improbe(peer, tag, communicator_, &arrived, &message, &status));
  if (arrived == 0) return false;
  int length = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &length));
  into.resize(static_cast<std::size_t>(length));
  check_mpi(MPI_Mrecv(into.data(), length, MPI_BYTE, &message, MPI_STATUS_IGNORE));
  return true;
}

Operation::Status Gathering::poll_root() {
  auto const before = missing_.size();
  std::erase_if(missing_, [&](int peer) { return receive(peer, parts_[static_cast<std::size_t>(peer)]); });
  if (missing_.empty() && !collected_) {
    collected_ = true;
    packed_ = pack(parts_);
    for (int peer = 1; peer < thread_.size(); ++peer) send(peer, packed_);
  }
  if (collected_ && sends_are_done()) return Status::done;
  return missing_.size() < before ? Status::moved : Status::idle;
}

Operation::Status Gathering::poll_leaf() {
  if (!collected_ && receive(0, packed_)) {
    collected_ = true;
    missing_.clear();
    parts_ = unpack(packed_);
  }
  return collected_ && sends_are_done() ? Status::done : Status::idle;
}

bool Gathering::sends_are_done() {
  int done = 0;
  check_mpi(MPI_Testall(static_cast<int>(sends_.size()), sends_.data(), &done, MPI_STATUSES_IGNORE));
  return done != 0;
}

void Gathering::give_up_on_lost() {
  auto const lost = patience_.lost(missing_);
  if (!lost) return;
  throw PeerLost(fmt::format("{}: {} {}", what_, describe_peer_(lost->peer), lost->describe("taken part")));
}

}  // namespace plait
