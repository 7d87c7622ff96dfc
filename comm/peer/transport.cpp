#include "transport.hpp"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "../cuda/copy.hpp"
#include "../cuda/queued_exchanges.hpp"
#include "../cuda/scratch.hpp"
#include "../cuda/stream.hpp"
#include "../exchange_order.hpp"
#include "introduction.hpp"
#include "plait/comm_error.hpp"
#include "plait/mpi_transport.hpp"
#include "shared_memory.hpp"

namespace plait {
namespace {

/// Runs of a message that its sender is told of; one that is cut more finely arrives in scratch memory.
constexpr std::size_t most_runs = 16;
/// Allocations of others that stay mapped; then all are let go, for their owners may have freed them.
constexpr std::size_t most_allocations = 64;

/// Where a receiver wants a message: what it tells the sender, in host memory.
struct Destination {
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  SharedRun runs[most_runs];
};

/// The destinations of one exchange, while the hosts talk about them.
struct Talk {
  std::vector<Destination> told;   ///< by this rank, of what it receives
  std::vector<Destination> heard;  ///< of what it sends
};

/// A receiver tells its senders where it wants their messages, and records an event after the work that they
/// must not overtake. A sender's stream waits for that event, copies, and records another one; then its host
/// says so, and the receiver's stream waits for it. So hosts talk as each exchange is finished, and never
/// wait for a GPU. An event is recorded anew only after all who were to wait for it have queued their wait: a
/// rank finishes an exchange after its senders have said so, and is told of the next one by its receivers.
class PeerCopies : public Transport {
 public:
  PeerCopies(World const& world, cudaStream_t compute, PeerEvents events)
      : world_(world),
        compute_(compute),
        control_(make_mpi_transport(world)),
        events_(std::move(events)),
        exchanges_(world, stream_) {
    std::vector<std::uint64_t> const none(static_cast<std::size_t>(world.size()));
    traffic_ = {.sent = none, .received = none};
  }

  std::string describe() const override { return "peer"; }
  bool uses_multiprocessors() const override { return false; }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    control_->name_blocks(namer);
    exchanges_.name_blocks(std::move(namer));
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    require_finished(started_);
    started_ = true;
    // Sends read what was computed; receives overwrite what was read.
    events_.ready->record(compute_);
    events_.ready->make_wait(stream_);
    exchanges_.begin(exchange, std::move(keep_alive));
    exchange_ = std::move(exchange);
    talk_ = std::make_shared<Talk>();
    talk_->heard.resize(exchange_.sends.size());
    list_destinations();
    // What is received is told where it goes: to its sender.
    control_->start({.round = exchange_.round,
                     .sends = words_on(exchange_.receives, talk_->told),
                     .receives = words_on(exchange_.sends, talk_->heard)},
                    talk_);
  }

  void finish() override {
    require_started(std::exchange(started_, false));
    control_->finish();
    if (memory_.size() > most_allocations) {
      exchanges_.await(1);
      memory_.close();
    }
    for (std::size_t i = 0; i < exchange_.sends.size(); ++i) send(exchange_.sends[i], talk_->heard[i]);
    for (int const peer : peers(exchange_.sends)) at(events_.sent, peer).record(stream_);
    say_that_it_is_queued();
    for (int const peer : peers(exchange_.receives)) {
      if (peer != world_.rank()) at(events_.peer_sent, peer).make_wait(stream_);
    }
    for (auto const& [message, arrived] : scattered_) {
      copy_pieces(Copy::scatter, exchange_.receives[message].pieces, arrived, stream_);
    }
    for (Message const& message : exchange_.receives) at(traffic_.received, message.peer) += message.bytes();
    exchanges_.end();
    exchanges_.lead(compute_);
    exchanges_.await(QueuedExchanges::most_outstanding);
    (void)control_->take_flights();
  }

  void complete(std::string const&) override { exchanges_.await(0); }
  std::vector<Flight> take_flights() override { return exchanges_.take_flights(); }
  void barrier(std::string const& what) override { world_.barrier(what); }
  Traffic traffic() const override { return traffic_; }

 private:
  template <class Value>
  static Value& at(std::vector<Value>& by_rank, int rank) {
    return by_rank[static_cast<std::size_t>(rank)];
  }
  static std::set<int> peers(std::vector<Message> const& messages) {
    std::set<int> found;
    for (Message const& message : messages) found.insert(message.peer);
    return found;
  }

  /// For each message received, where this rank wants it; scratch memory where others cannot be told.
  void list_destinations() {
    std::vector<std::size_t> finely_cut;
    std::size_t scratch_bytes = 0;
    for (std::size_t i = 0; i < exchange_.receives.size(); ++i) {
      Destination& destination = talk_->told.emplace_back();
      destination.bytes = exchange_.receives[i].bytes();
      if (list(runs_of(exchange_.receives[i].pieces), destination)) continue;
      finely_cut.push_back(i);
      scratch_bytes += aligned(destination.bytes);
    }
    scattered_.clear();
    std::byte* scratch = scratch_.at_least(scratch_bytes);
    for (std::size_t const i : finely_cut) {
      std::size_t const bytes = talk_->told[i].bytes;
      if (!list({{.data = scratch, .width = bytes, .pitch = bytes, .rows = 1}}, talk_->told[i])) {
        throw CommError("device memory that was shared with other processes before cannot be now");
      }
      scattered_.emplace_back(i, scratch);
      scratch += aligned(bytes);
    }
  }
  static bool list(std::vector<RowRun> const& runs, Destination& destination) {
    destination.count = runs.size();
    if (runs.size() > most_runs) return false;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      auto const shared = share(runs[i]);
      if (!shared) return false;
      destination.runs[i] = *shared;
    }
    return true;
  }
  static std::size_t aligned(std::size_t bytes) {
    constexpr std::size_t alignment = 256;
    return (bytes + alignment - 1) / alignment * alignment;
  }

  /// For each message, one between the same ranks about its destination.
  static std::vector<Message> words_on(std::vector<Message> const& messages,
                                       std::vector<Destination>& destinations) {
    std::vector<Message> words;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      words.push_back({.peer = messages[i].peer,
                       .block = messages[i].block,
                       .pieces = {{reinterpret_cast<std::byte*>(&destinations[i]), sizeof(Destination)}}});
    }
    return words;
  }

  void send(Message const& message, Destination const& destination) {
    if (destination.bytes != message.bytes()) {
      throw CommError(fmt::format("{}, {}: {} has {} bytes, and {} expects {}",
                                  world_.describe(world_.rank()), exchanges_.where(),
                                  exchanges_.block_name(message.block), message.bytes(),
                                  world_.describe(message.peer), destination.bytes));
    }
    if (message.peer != world_.rank()) at(events_.peer_ready, message.peer).make_wait(stream_);
    std::vector<RowRun> into;
    for (std::size_t i = 0; i < destination.count; ++i) {
      into.push_back(memory_.open(destination.runs[i]));
    }
    for (RowCopy const& copy : copies_between(runs_of(message.pieces), into)) {
      queue(copy);
    }
    at(traffic_.sent, message.peer) += message.bytes();
  }

  void queue(RowCopy const& copy) {
    if (copy.rows == 1) {  // a row may be longer than a pitch may be
      PLAIT_CHECK_CUDA(cudaMemcpyAsync(copy.into, copy.from, copy.width, cudaMemcpyDefault, stream_));
      return;
    }
    PLAIT_CHECK_CUDA(cudaMemcpy2DAsync(copy.into, copy.into_pitch, copy.from, copy.from_pitch, copy.width,
                                       copy.rows, cudaMemcpyDefault, stream_));
  }

  /// Between each sender and receiver, one message of no bytes for each of theirs: the copies are queued.
  void say_that_it_is_queued() {
    auto const bare = [](std::vector<Message> messages) {
      for (Message& message : messages) message.pieces.clear();
      return messages;
    };
    control_->start(
        {.round = exchange_.round, .sends = bare(exchange_.sends), .receives = bare(exchange_.receives)},
        nullptr);
    control_->finish();
  }

  World const& world_;
  cudaStream_t compute_;
  std::unique_ptr<Transport> control_;
  PeerEvents events_;
  OpenedMemory memory_;
  Scratch scratch_;
  CudaStream stream_;
  QueuedExchanges exchanges_;
  Exchange exchange_;                                          ///< the latest
  std::shared_ptr<Talk> talk_;                                 ///< about it
  std::vector<std::pair<std::size_t, std::byte*>> scattered_;  ///< its messages that arrive in scratch memory
  bool started_ = false;
  Traffic traffic_;
};

}  // namespace

PeerAttempt make_peer_transport(World const& world, void* stream) {
  PeerEvents events;
  std::string refusal = introduce(world, events);
  if (!refusal.empty()) return {.refusal = std::move(refusal)};
  return {.transport =
              std::make_unique<PeerCopies>(world, static_cast<cudaStream_t>(stream), std::move(events))};
}

}  // namespace plait
