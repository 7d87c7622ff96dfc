#include "transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "../cuda/copy.hpp"
#include "../cuda/queued_exchanges.hpp"
#include "../cuda/scratch.hpp"
#include "../cuda/stream.hpp"
#include "../exchange_order.hpp"
#include "../mpi/peer_wait.hpp"
#include "introduction.hpp"
#include "plait/comm_error.hpp"
#include "row_copies.hpp"
#include "shared_memory.hpp"
#include "stream_flags.hpp"

namespace plait {
namespace {

/// Pieces of a message that its sender is told of; one that is cut more finely arrives in scratch memory.
constexpr std::size_t most_pieces = 16;
/// Allocations of others that stay mapped; then all are let go, for their owners may have freed them.
constexpr std::size_t most_allocations = 64;
/// How long the start of an exchange waits for notes: copies that are queued before the round's folds are not
/// held up by the host's part in those.
constexpr auto patience_at_start = std::chrono::microseconds(10);

/// Where a receiver wants a message: what its note to the sender begins with.
struct Destination {
  std::uint64_t round = 0;
  std::uint64_t block = 0;
  std::uint64_t bytes = 0;
  std::uint64_t pieces = 0;  ///< that follow
};
static_assert(sizeof(Destination) + most_pieces * sizeof(SharedRows) <= Mailboxes::most_note_bytes);

/// Ranks that the messages go to or come from, each once, in the order of the messages; not `self`.
std::vector<int> peers(std::vector<Message> const& messages, int self) {
  std::vector<int> found;
  for (Message const& message : messages) {
    if (message.peer != self && std::ranges::find(found, message.peer) == found.end()) {
      found.push_back(message.peer);
    }
  }
  return found;
}

template <class Value>
Value& at(std::vector<Value>& by_rank, int rank) {
  return by_rank[static_cast<std::size_t>(rank)];
}

/// As an exchange is started, a receiver leaves a note of where it wants its messages, and its stream raises
/// its senders' `ready` flags after the work that they must not overtake. Once a sender's host has the note,
/// its stream waits for that flag, copies, and raises the receiver's `sent` flag, for which the receiver's
/// stream waits. So a host waits for notes alone, which are left before the receiver's GPU gets there.
class PeerCopies : public Transport {
 public:
  PeerCopies(World const& world, cudaStream_t compute, std::unique_ptr<PeerLinks> links)
      : world_(world),
        compute_(compute),
        links_(std::move(links)),
        flags_(stream_),
        exchanges_(world, stream_) {
    std::vector<std::uint64_t> const none(static_cast<std::size_t>(world.size()));
    traffic_ = {.sent = none, .received = none};
    ready_ = sent_ = {.written = none, .awaited = none};
  }

  ~PeerCopies() override {
    if (exchanges_.outstanding() > 0) let_go();
  }
  PeerCopies(PeerCopies const&) = delete;
  PeerCopies& operator=(PeerCopies const&) = delete;

  std::string describe() const override { return "peer"; }
  bool uses_multiprocessors() const override { return false; }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    exchanges_.name_blocks(std::move(namer));
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    require_finished(started_);
    started_ = true;
    exchange_ = std::move(exchange);
    or_let_go([&] { queue_start(std::move(keep_alive)); });
  }

  void finish() override {
    require_started(std::exchange(started_, false));
    or_let_go([&] { queue_finish(); });
  }

  void complete(std::string const&) override {
    or_let_go([&] { exchanges_.await(0); });
  }
  std::vector<Flight> take_flights() override { return exchanges_.take_flights(); }
  Traffic traffic() const override { return traffic_; }

  void barrier(std::string const& what) override {
    std::uint64_t const barrier = links_->mail.come_to_barrier();
    for (int rank = 0; rank < world_.size(); ++rank) {
      PeerWait wait(
          world_, {rank}, [this] { return world_.describe(world_.rank()); }, [&] { return what; });
      while (!links_->mail.has_come(rank, barrier)) wait.pause();
    }
  }

 private:
  /// By rank, the last numbers of flags.
  struct Numbers {
    std::vector<std::uint64_t> written;
    std::vector<std::uint64_t> awaited;
  };

  /// Streams may wait for flags that are never raised once something has failed, and memory cannot be freed
  /// while they do.
  template <class Work>
  void or_let_go(Work const& work) {
    try {
      work();
    } catch (...) {
      let_go();
      throw;
    }
  }
  void let_go() noexcept {
    try {
      links_->let_go();
    } catch (CommError const&) {  // then CUDA has failed, and no stream waits
    }
  }

  void queue_start(std::shared_ptr<void> keep_alive) {
    if (memory_.size() > most_allocations) {  // before any copy of this exchange is queued
      exchanges_.await(0);
      memory_.close();
    }
    // Sends read what was computed; receives overwrite what was read.
    computed_.record(compute_);
    computed_.make_wait(stream_);
    exchanges_.begin(exchange_, std::move(keep_alive));
    tell_destinations();
    senders_ = peers(exchange_.receives, world_.rank());
    for (int const sender : senders_) {
      flags_.write(links_->ready({world_.rank(), sender}), ++at(ready_.written, sender));
    }
    flags_.queue();
    list_sends();
    auto const tired = std::chrono::steady_clock::now() + patience_at_start;
    while (next_send_ < sends_.size()) {
      if (links_->mail.take(sends_[next_send_]->peer, note_)) {
        send_next();
      } else if (std::chrono::steady_clock::now() > tired) {
        break;
      }
    }
    flags_.queue();
  }

  void queue_finish() {
    while (next_send_ < sends_.size()) {
      int const receiver = sends_[next_send_]->peer;
      wait_until(
          [&] {
            (void)links_->mail.send_waiting();
            return links_->mail.take(receiver, note_);
          },
          {receiver});
      send_next();
    }
    for (int const sender : senders_) {
      flags_.await(links_->sent({sender, world_.rank()}), ++at(sent_.awaited, sender));
    }
    flags_.queue();
    for (auto const& [message, arrived] : scattered_) {
      copy_stream(Copy::scatter, exchange_.receives[message].pieces, arrived, stream_);
    }
    for (Message const& message : exchange_.receives) at(traffic_.received, message.peer) += message.bytes();
    exchanges_.end();
    exchanges_.lead(compute_);
    wait_until([this] { return links_->mail.send_waiting(); }, senders_);
    exchanges_.await(QueuedExchanges::most_outstanding);
  }

  /// For each message received, a note of where this rank wants it; scratch memory where others cannot be
  /// told.
  void tell_destinations() {
    std::vector<std::optional<std::vector<SharedRows>>> destinations;
    std::size_t scratch_bytes = 0;
    for (Message const& message : exchange_.receives) {
      destinations.push_back(shared(message.pieces));
      if (!destinations.back()) scratch_bytes += aligned(message.bytes());
    }
    scattered_.clear();
    std::byte* scratch = scratch_.at_least(scratch_bytes);
    for (std::size_t i = 0; i < destinations.size(); ++i) {
      std::size_t const bytes = exchange_.receives[i].bytes();
      if (!destinations[i]) {
        destinations[i] = shared({{.data = scratch, .width = bytes}});
        scattered_.emplace_back(i, scratch);
        scratch += aligned(bytes);
      }
      if (!destinations[i]) {
        throw CommError("device memory that was shared with other processes before cannot be now");
      }
      tell(exchange_.receives[i], *destinations[i]);
    }
  }
  std::optional<std::vector<SharedRows>> shared(std::vector<StridedRegion> const& pieces) {
    std::vector<SharedRows> all;
    for (StridedRegion const& piece : pieces) {
      if (piece.bytes() == 0) continue;
      if (all.size() == most_pieces) return std::nullopt;
      auto const one = own_memory_.share(piece);
      if (!one) return std::nullopt;
      all.push_back(*one);
    }
    return all;
  }
  void tell(Message const& message, std::vector<SharedRows> const& pieces) {
    Destination const destination{
        .round = exchange_.round, .block = message.block, .bytes = message.bytes(), .pieces = pieces.size()};
    std::size_t const bytes = sizeof destination + pieces.size() * sizeof(SharedRows);
    std::byte note[Mailboxes::most_note_bytes];
    std::memcpy(note, &destination, sizeof destination);
    if (!pieces.empty())
      std::memcpy(note + sizeof destination, pieces.data(), pieces.size() * sizeof(SharedRows));
    links_->mail.post(message.peer, {note, bytes});
  }
  static std::size_t aligned(std::size_t bytes) {
    constexpr std::size_t alignment = 256;
    return (bytes + alignment - 1) / alignment * alignment;
  }

  /// What is sent, all messages to one receiver after one another.
  void list_sends() {
    sends_.clear();
    next_send_ = 0;
    auto const add = [this](int receiver) {
      for (Message const& message : exchange_.sends) {
        if (message.peer == receiver) sends_.push_back(&message);
      }
    };
    add(world_.rank());
    for (int const receiver : peers(exchange_.sends, world_.rank())) add(receiver);
  }

  /// Queues the next message's copies; `note_` is its receiver's.
  void send_next() {
    std::size_t const index = next_send_++;
    Message const& message = *sends_[index];
    bool const first = index == 0 || sends_[index - 1]->peer != message.peer;
    bool const last = next_send_ == sends_.size() || sends_[next_send_]->peer != message.peer;
    bool const leaves = message.peer != world_.rank();
    if (first && leaves) {
      flags_.await(links_->ready({message.peer, world_.rank()}), ++at(ready_.awaited, message.peer));
    }
    for (RowCopy const& copy : copies_between(message.pieces, destination_of(message))) {
      flags_.queue();
      copy_rows(copy.from, copy.from_pitch, copy.into, copy.into_pitch, copy.width, copy.rows, stream_);
    }
    if (last && leaves) {
      flags_.write(links_->sent({world_.rank(), message.peer}), ++at(sent_.written, message.peer));
    }
    at(traffic_.sent, message.peer) += message.bytes();
  }

  /// Where its receiver wants it, by `note_`.
  std::vector<StridedRegion> destination_of(Message const& message) {
    Destination told;
    std::memcpy(&told, note_.data(), sizeof told);
    if (told.round != exchange_.round || told.block != message.block || told.bytes != message.bytes()) {
      throw CommError(fmt::format(
          "{}, {}: {} has {} bytes, and {} expects {} of {} in round {}", world_.describe(world_.rank()),
          exchanges_.where(), exchanges_.block_name(message.block), message.bytes(),
          world_.describe(message.peer), told.bytes, exchanges_.block_name(told.block), told.round));
    }
    std::vector<StridedRegion> into;
    for (std::size_t i = 0; i < told.pieces; ++i) {
      SharedRows rows{};
      std::memcpy(&rows, note_.data() + sizeof told + i * sizeof rows, sizeof rows);
      into.push_back(memory_.open(rows));
    }
    return into;
  }

  /// @throws PeerLost if the ranks that it depends on must be given up
  template <class Condition>
  void wait_until(Condition const& holds, std::vector<int> const& ranks) {
    if (holds()) return;
    PeerWait wait = exchanges_.wait_for(ranks);
    while (!holds()) wait.pause();
  }

  World const& world_;
  cudaStream_t compute_;
  std::unique_ptr<PeerLinks> links_;
  SharedAllocations own_memory_;
  OpenedMemory memory_;
  Scratch scratch_;
  CudaStream stream_;
  CudaEvent computed_;
  StreamFlags flags_;  ///< on `stream_`
  Numbers ready_;
  Numbers sent_;
  QueuedExchanges exchanges_;
  Exchange exchange_;                  ///< the latest
  std::vector<int> senders_;           ///< of its receives
  std::vector<Message const*> sends_;  ///< its sends, in the order of their copies
  std::size_t next_send_ = 0;
  std::vector<std::pair<std::size_t, std::byte*>> scattered_;  ///< its messages that arrive in scratch memory
  std::vector<std::byte> note_;                                ///< the last one that was taken
  bool started_ = false;
  Traffic traffic_;
};

}  // namespace

PeerAttempt make_peer_transport(World const& world, void* stream) {
  auto [links, refusal] = introduce(world);
  if (!links) return {.refusal = std::move(refusal)};
  return {.transport =
              std::make_unique<PeerCopies>(world, static_cast<cudaStream_t>(stream), std::move(links))};
}

}  // namespace plait
