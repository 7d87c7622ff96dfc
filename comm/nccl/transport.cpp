#include "transport.hpp"

#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <thread>
#include <utility>

#include "../cuda/call.hpp"
#include "../cuda/copy.hpp"
#include "plait/comm_error.hpp"
#include "plait/transport_choice.hpp"

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;

/// Sends and receives of one group; groups of hundreds have hung.
constexpr std::size_t group_operations = 64;
/// Exchanges that may be under way before finish waits for the oldest: bounds how late an error is noticed.
constexpr std::size_t most_outstanding = 2;

/// Device memory that only grows.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { (void)cudaFree(data_); }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;

  std::byte* at_least(std::size_t bytes) {
    if (bytes > bytes_) {
      PLAIT_CHECK_CUDA(cudaFree(std::exchange(data_, nullptr)));
      bytes_ = 0;
      PLAIT_CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), bytes));
      bytes_ = bytes;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// One exchange under way: between two events of the communication stream.
struct Outstanding {
  std::uint64_t round = 0;
  std::size_t sends = 0;
  std::size_t receives = 0;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Clock::time_point started;
  std::string what;  ///< "receiving kv [0, 512) from rank 3 (host b)"
  std::shared_ptr<void> keep_alive;
};

class NcclTransport : public Transport {
 public:
  NcclTransport(World const& world, cudaStream_t compute) : world_(world), compute_(compute) {
    // What moves goes first where a multiprocessor becomes free: folds wait for it, not the other way round.
    int lowest = 0;
    int highest = 0;
    PLAIT_CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    PLAIT_CHECK_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest));
    PLAIT_CHECK_CUDA(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming));
    std::vector<std::uint64_t> const none(static_cast<std::size_t>(world.size()));
    traffic_ = {.sent = none, .received = none};
    join();
  }

  ~NcclTransport() override {
    if (communicator_ != nullptr) (void)ncclCommAbort(communicator_);
    for (Outstanding const& exchange : outstanding_) free_events(exchange);
    (void)cudaEventDestroy(ready_);
    (void)cudaStreamDestroy(stream_);
  }
  NcclTransport(NcclTransport const&) = delete;
  NcclTransport& operator=(NcclTransport const&) = delete;

  std::string describe() const override { return "nccl"; }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override { namer_ = std::move(namer); }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    if (started_) throw std::logic_error("a transport's exchange is started before the last one is finished");
    started_ = true;
    // Sends read what was computed; receives overwrite what was read.
    PLAIT_CHECK_CUDA(cudaEventRecord(ready_, compute_));
    PLAIT_CHECK_CUDA(cudaStreamWaitEvent(stream_, ready_, 0));
    Outstanding& now = outstanding_.emplace_back();
    now.round = exchange.round;
    now.sends = exchange.sends.size();
    now.receives = exchange.receives.size();
    now.started = Clock::now();
    now.what = describe(exchange);
    now.keep_alive = std::move(keep_alive);
    PLAIT_CHECK_CUDA(cudaEventCreate(&now.begin));
    PLAIT_CHECK_CUDA(cudaEventCreate(&now.end));
    PLAIT_CHECK_CUDA(cudaEventRecord(now.begin, stream_));
    move(exchange);
    PLAIT_CHECK_CUDA(cudaEventRecord(now.end, stream_));
  }

  void finish() override {
    if (!std::exchange(started_, false)) {
      throw std::logic_error("a transport's exchange is finished before it is started");
    }
    PLAIT_CHECK_CUDA(cudaStreamWaitEvent(compute_, outstanding_.back().end, 0));
    while (outstanding_.size() > most_outstanding) await_oldest();
  }

  void complete(std::string const&) override {
    while (!outstanding_.empty()) await_oldest();
  }

  std::vector<Flight> take_flights() override { return std::exchange(flights_, {}); }
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
    Clock::time_point const start = Clock::now();
    for (;;) {
      ncclResult_t state = ncclInProgress;
      check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
      if (state != ncclInProgress) {
        if (state != ncclSuccess) fail(what, state);
        return;
      }
      if (Clock::now() - start > world_.timeout()) give_up(what);
      std::this_thread::yield();
    }
  }

  /// Contiguous blocks go as they are, scattered ones through scratch memory, in the same order on both
  /// sides.
  void move(Exchange const& exchange) {
    std::size_t packed = 0;
    for (auto const* messages : {&exchange.sends, &exchange.receives}) {
      for (Message const& message : *messages) packed += message.pieces.size() > 1 ? message.bytes() : 0;
    }
    std::byte* scratch = scratch_.at_least(packed);
    std::vector<Region> sent;
    for (Message const& message : exchange.sends) {
      sent.push_back(contiguous(message, scratch));
      if (message.pieces.size() > 1) copy_pieces(Copy::gather, message.pieces, sent.back().data, stream_);
    }
    std::vector<Region> received;
    for (Message const& message : exchange.receives) received.push_back(contiguous(message, scratch));
    std::size_t const most = std::max(sent.size(), received.size());
    for (std::size_t first = 0; first < most; first += group_operations / 2) {
      std::size_t const last = first + group_operations / 2;
      group(exchange, sent, received, first, last);
    }
    for (std::size_t i = 0; i < received.size(); ++i) {
      auto const& pieces = exchange.receives[i].pieces;
      if (pieces.size() > 1) copy_pieces(Copy::scatter, pieces, received[i].data, stream_);
    }
  }

  /// One block's memory: its only piece, or the next bytes of scratch.
  static Region contiguous(Message const& message, std::byte*& scratch) {
    if (message.pieces.empty()) return {};
    if (message.pieces.size() == 1) return message.pieces.front();
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
    settle(outstanding_.back().what);
  }

  void await_oldest() {
    Outstanding const oldest = outstanding_.front();
    Clock::time_point const start = Clock::now();
    while (cudaEventQuery(oldest.end) == cudaErrorNotReady) {
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
      if (state != ncclSuccess && state != ncclInProgress) fail(where(oldest), state);
      // Only once the exchange has begun: before that it waits for this rank's own work.
      bool const begun = cudaEventQuery(oldest.begin) == cudaSuccess;
      if (begun && Clock::now() - start > world_.timeout()) give_up(where(oldest));
      std::this_thread::yield();
    }
    PLAIT_CHECK_CUDA(cudaEventQuery(oldest.end));
    float milliseconds = 0.0f;
    PLAIT_CHECK_CUDA(cudaEventElapsedTime(&milliseconds, oldest.begin, oldest.end));
    auto const length =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(milliseconds));
    for (auto const direction : {Flight::Direction::send, Flight::Direction::receive}) {
      std::size_t const count = direction == Flight::Direction::send ? oldest.sends : oldest.receives;
      for (std::size_t i = 0; i < count; ++i) {
        flights_.push_back({.direction = direction,
                            .round = oldest.round,
                            .message = i,
                            .start = oldest.started,
                            .end = oldest.started + length});
      }
    }
    free_events(oldest);
    outstanding_.pop_front();
  }

  static void free_events(Outstanding const& exchange) {
    (void)cudaEventDestroy(exchange.begin);
    (void)cudaEventDestroy(exchange.end);
  }

  [[nodiscard]] std::string peer_name(int rank) const {
    return fmt::format("rank {} (host {})", rank, world_.places()[static_cast<std::size_t>(rank)].host);
  }
  [[nodiscard]] std::string describe(Exchange const& exchange) const {
    auto const block = [&](std::uint64_t id) { return namer_ ? namer_(id) : fmt::format("block {}", id); };
    std::string text;
    for (Message const& message : exchange.sends) {
      text += fmt::format("{}sending {} to {}", text.empty() ? "" : ", ", block(message.block),
                          peer_name(message.peer));
      if (text.size() > 200) return text + ", …";
    }
    for (Message const& message : exchange.receives) {
      text += fmt::format("{}receiving {} from {}", text.empty() ? "" : ", ", block(message.block),
                          peer_name(message.peer));
      if (text.size() > 200) return text + ", …";
    }
    return text;
  }
  [[nodiscard]] std::string where(Outstanding const& exchange) const {
    return fmt::format("round {}: {}", exchange.round, exchange.what);
  }

  void check(ncclResult_t code, char const* call) {
    if (code != ncclSuccess) fail(call, code);
  }
  [[noreturn]] void fail(std::string const& what, ncclResult_t code) {
    std::string const words = ncclGetErrorString(code);
    std::string const last = communicator_ != nullptr ? ncclGetLastError(communicator_) : "";
    abort();
    throw CommError(fmt::format("{}, {}: NCCL: {}{}{}", peer_name(world_.rank()), what, words,
                                last.empty() ? "" : "; ", last));
  }
  [[noreturn]] void give_up(std::string const& what) {
    abort();
    throw PeerLost(fmt::format("{}, {}: no progress for {:.1f} s", peer_name(world_.rank()), what,
                               std::chrono::duration<double>(world_.timeout()).count()));
  }
  void abort() {
    if (communicator_ != nullptr) (void)ncclCommAbort(std::exchange(communicator_, nullptr));
  }

  World const& world_;
  cudaStream_t compute_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t ready_ = nullptr;
  ncclComm_t communicator_ = nullptr;
  std::function<std::string(std::uint64_t)> namer_;
  Scratch scratch_;
  bool started_ = false;
  std::deque<Outstanding> outstanding_;
  std::vector<Flight> flights_;
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
