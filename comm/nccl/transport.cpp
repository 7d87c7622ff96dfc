#include "transport.hpp"

#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "../cuda/call.hpp"
#include "../cuda/copy.hpp"
#include "../cuda/queued_exchanges.hpp"
#include "../cuda/scratch.hpp"
#include "../cuda/stream.hpp"
#include "../exchange_order.hpp"
#include "../mpi/peer_wait.hpp"
#include "plait/comm_error.hpp"
#include "plait/transport_choice.hpp"

namespace plait {
namespace {

/// Sends and receives of one group; groups of hundreds have hung.
constexpr std::size_t group_operations = 64;

class NcclTransport : public Transport {
 public:
  // What moves goes first where a multiprocessor becomes free: folds wait for it, not the other way round.
  NcclTransport(World const& world, cudaStream_t compute)
      : world_(world),
        compute_(compute),
        stream_(CudaStream::of_highest_priority()),
        exchanges_(world, stream_) {
    std::vector<std::uint64_t> const none(static_cast<std::size_t>(world.size()));
    traffic_ = {.sent = none, .received = none};
    join();
  }

  ~NcclTransport() override {
    if (communicator_ != nullptr) (void)ncclCommAbort(communicator_);
  }
  NcclTransport(NcclTransport const&) = delete;
  NcclTransport& operator=(NcclTransport const&) = delete;

  std::string describe() const override { return "nccl"; }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    exchanges_.name_blocks(std::move(namer));
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    require_finished(started_);
    started_ = true;
    // Sends read what was computed; receives overwrite what was read.
    ready_.record(compute_);
    ready_.make_wait(stream_);
    exchanges_.begin(exchange, std::move(keep_alive));
    move(exchange);
    exchanges_.end();
  }

  void finish() override {
    require_started(std::exchange(started_, false));
    exchanges_.lead(compute_);
    await(QueuedExchanges::most_outstanding);
  }

  void complete(std::string const&) override { await(0); }

  std::vector<Flight> take_flights() override { return exchanges_.take_flights(); }
  void barrier(std::string const& what) override { world_.barrier(what); }
  Traffic traffic() const override { return traffic_; }

 private:
  /// All ranks join one communicator.
  void join() {
    ncclUniqueId id{};
    if (world_.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    auto const ids = world_.all_gather(std::as_bytes(std::span(&id, 1)), "the start of NCCL");
    std::memcpy(&id, ids.front().data(), sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t const code =
        ncclCommInitRankConfig(&communicator_, world_.size(), id, world_.rank(), &config);
    if (code != ncclInProgress) check(code, "ncclCommInitRankConfig");
    settle("joining NCCL's communicator");
  }

  /// Waits until NCCL has taken in what it was given.
  void settle(std::string const& what) {
    std::vector<int> everyone(static_cast<std::size_t>(world_.size()));
    std::iota(everyone.begin(), everyone.end(), 0);
    PeerWait wait(
        world_, std::move(everyone), [this] { return world_.describe(world_.rank()); },
        [&what] { return what; });
    try {
      for (;;) {
        ncclResult_t state = ncclInProgress;
        check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
        if (state == ncclSuccess) return;
        if (state != ncclInProgress) fail(what, state);
        wait.pause();
      }
    } catch (PeerLost const&) {
      abort();
      throw;
    }
  }

  /// Contiguous blocks go as they are, scattered ones through scratch memory, in the same order on both
  /// sides.
  void move(Exchange const& exchange) {
    std::size_t packed = 0;
    for (auto const* messages : {&exchange.sends, &exchange.receives}) {
      for (Message const& message : *messages) packed += message.contiguous() ? 0 : message.bytes();
    }
    std::byte* scratch = scratch_.at_least(packed);
    std::vector<Region> sent;
    for (Message const& message : exchange.sends) {
      sent.push_back(contiguous(message, scratch));
      if (!message.contiguous()) copy_stream(Copy::gather, message.pieces, sent.back().data, stream_);
    }
    std::vector<Region> received;
    for (Message const& message : exchange.receives) received.push_back(contiguous(message, scratch));
    std::size_t const most = std::max(sent.size(), received.size());
    for (std::size_t first = 0; first < most; first += group_operations / 2) {
      std::size_t const last = first + group_operations / 2;
      group(exchange, sent, received, first, last);
    }
    for (std::size_t i = 0; i < received.size(); ++i) {
      Message const& message = exchange.receives[i];
      if (!message.contiguous()) copy_stream(Copy::scatter, message.pieces, received[i].data, stream_);
    }
  }

  /// One block's memory: its only piece, or the next bytes of scratch.
  static Region contiguous(Message const& message, std::byte*& scratch) {
    if (message.pieces.empty()) return {};
    if (message.contiguous()) return {message.pieces.front().data, message.bytes()};
    Region const region{scratch, message.bytes()};
    scratch += region.bytes;
    return region;
  }

  /// The sends and receives [first, last) of the exchange as one NCCL group.
  void group(Exchange const& exchange, std::vector<Region> const& sent, std::vector<Region> const& received,
             std::size_t first, std::size_t last) {
    check(ncclGroupStart(), "ncclGroupStart");
    for (std::size_t i = first; i < std::min(last, received.size()); ++i) {
      if (received[i].bytes == 0) continue;
      int const peer = exchange.receives[i].peer;
      check(ncclRecv(received[i].data, received[i].bytes, ncclInt8, peer, communicator_, stream_),
            "ncclRecv");
      traffic_.received[static_cast<std::size_t>(peer)] += received[i].bytes;
    }
    for (std::size_t i = first; i < std::min(last, sent.size()); ++i) {
      if (sent[i].bytes == 0) continue;
      int const peer = exchange.sends[i].peer;
      check(ncclSend(sent[i].data, sent[i].bytes, ncclInt8, peer, communicator_, stream_), "ncclSend");
      traffic_.sent[static_cast<std::size_t>(peer)] += sent[i].bytes;
    }
    ncclResult_t const code = ncclGroupEnd();
    if (code != ncclInProgress) check(code, "ncclGroupEnd");
    settle(exchanges_.where());
  }

  void await(std::size_t most) {
    try {
      exchanges_.await(most, [this] {
        ncclResult_t state = ncclSuccess;
        check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
        if (state != ncclSuccess && state != ncclInProgress) fail(exchanges_.where_oldest(), state);
      });
    } catch (PeerLost const&) {
      abort();
      throw;
    }
  }

  void check(ncclResult_t code, char const* call) {
    if (code != ncclSuccess) fail(call, code);
  }
  [[noreturn]] void fail(std::string const& what, ncclResult_t code) {
    std::string const words = ncclGetErrorString(code);
    std::string const last = communicator_ != nullptr ? ncclGetLastError(communicator_) : "";
    abort();
    throw CommError(fmt::format("{}, {}: NCCL: {}{}{}", world_.describe(world_.rank()), what, words,
                                last.empty() ? "" : "; ", last));
  }
  void abort() {
    if (communicator_ != nullptr) (void)ncclCommAbort(std::exchange(communicator_, nullptr));
  }

  World const& world_;
  cudaStream_t compute_;
  CudaStream stream_;
  CudaEvent ready_;
  QueuedExchanges exchanges_;
  ncclComm_t communicator_ = nullptr;
  Scratch scratch_;
  bool started_ = false;
  Traffic traffic_;
};

}  // namespace

std::unique_ptr<Transport> make_nccl_transport(World const& world, void* stream) {
  return std::make_unique<NcclTransport>(world, static_cast<cudaStream_t>(stream));
}

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return {};
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace plait
