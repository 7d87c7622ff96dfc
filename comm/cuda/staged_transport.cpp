#include "staged_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "call.hpp"
#include "pieces.hpp"

namespace plait {
namespace {

/// Payload bytes of one chunk of a message: large enough that a copy runs at full speed.
constexpr std::size_t chunk_bytes = std::size_t{4} << 20;
/// Chunks of a message that have a buffer: one is copied while another is sent.
constexpr std::size_t buffers = 2;

/// Pinned host memory that only grows.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory() { (void)cudaFreeHost(data_); }
  PinnedMemory(PinnedMemory const&) = delete;
  PinnedMemory& operator=(PinnedMemory const&) = delete;

  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  std::byte* at_least(std::size_t bytes) {
    if (bytes > bytes_) {
      PLAIT_CHECK_CUDA(cudaFreeHost(std::exchange(data_, nullptr)));
      bytes_ = 0;
      PLAIT_CHECK_CUDA(cudaMallocHost(reinterpret_cast<void**>(&data_), bytes));
      bytes_ = bytes;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class CudaStream {
 public:
  CudaStream() { PLAIT_CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~CudaStream() { (void)cudaStreamDestroy(stream_); }
  CudaStream(CudaStream const&) = delete;
  CudaStream& operator=(CudaStream const&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  CudaEvent() { PLAIT_CHECK_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~CudaEvent() { (void)cudaEventDestroy(event_); }
  CudaEvent(CudaEvent const&) = delete;
  CudaEvent& operator=(CudaEvent const&) = delete;

  void record(cudaStream_t stream) { PLAIT_CHECK_CUDA(cudaEventRecord(event_, stream)); }
  void make_wait(cudaStream_t stream) const { PLAIT_CHECK_CUDA(cudaStreamWaitEvent(stream, event_, 0)); }
  void synchronize() const { PLAIT_CHECK_CUDA(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

/// One direction of an exchange: its messages, their buffers, and the stream that copies between the two.
struct Lane {
  std::vector<Message> messages;
  std::vector<Flight> flights;       ///< of each message so far
  std::vector<std::size_t> offsets;  ///< of each message's share of a buffer
  std::size_t buffer_bytes = 0;
  PinnedMemory memory;
  CudaStream stream;
  std::array<CudaEvent, buffers> copied;  ///< the last copy to or from each buffer

  void begin(std::vector<Message> started, Flight::Direction direction, std::uint64_t round) {
    messages = std::move(started);
    flights.assign(messages.size(), {.direction = direction, .round = round});
    offsets.clear();
    buffer_bytes = 0;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      flights[i].message = i;
      offsets.push_back(buffer_bytes);
      buffer_bytes += std::min(messages[i].bytes(), chunk_bytes);
    }
    if (memory.bytes() < buffers * buffer_bytes) PLAIT_CHECK_CUDA(cudaStreamSynchronize(stream));
    (void)memory.at_least(buffers * buffer_bytes);
  }
  /// Chunks of the longest message; a message of 0 bytes has one too.
  [[nodiscard]] std::size_t steps() const {
    std::size_t most = 0;
    for (Message const& message : messages) most = std::max(most, chunks(message));
    return most;
  }
  [[nodiscard]] static std::size_t chunks(Message const& message) {
    return std::max<std::size_t>(1, (message.bytes() + chunk_bytes - 1) / chunk_bytes);
  }
  [[nodiscard]] std::byte* buffer(std::size_t step, std::size_t message) {
    return memory.at_least(0) + step % buffers * buffer_bytes + offsets[message];
  }
  /// Queues the copies between the messages' chunks of a step and their buffers.
  void copy(Copy direction, std::size_t step) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (step >= chunks(messages[i])) continue;
      copy_pieces(direction, cut_pieces(messages[i].pieces, step * chunk_bytes, chunk_bytes), buffer(step, i),
                  stream);
    }
    copied[step % buffers].record(stream);
  }
  /// The messages' chunks of a step, in host memory; `origins` gets each one's message.
  [[nodiscard]] std::vector<Message> staged(std::size_t step, std::vector<std::size_t>& origins) {
    std::vector<Message> list;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (step >= chunks(messages[i])) continue;
      std::size_t const bytes = std::min(messages[i].bytes() - step * chunk_bytes, chunk_bytes);
      list.push_back(
          {.peer = messages[i].peer, .block = messages[i].block, .pieces = {{buffer(step, i), bytes}}});
      origins.push_back(i);
    }
    return list;
  }
};

class StagedTransport : public Transport {
 public:
  StagedTransport(std::unique_ptr<Transport> inner, cudaStream_t compute)
      : inner_(std::move(inner)), compute_(compute) {}

  std::string describe() const override { return fmt::format("{}, staged", inner_->describe()); }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    inner_->name_blocks(std::move(namer));
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    if (started_) throw std::logic_error("a transport's exchange is started before the last one is finished");
    // Copies out read what was computed; copies in overwrite what was read.
    ready_.record(compute_);
    ready_.make_wait(out_.stream);
    ready_.make_wait(in_.stream);
    round_ = exchange.round;
    keep_alive_ = std::move(keep_alive);
    out_.begin(std::move(exchange.sends), Flight::Direction::send, round_);
    in_.begin(std::move(exchange.receives), Flight::Direction::receive, round_);
    for (std::size_t step = 0; step < std::min(buffers, out_.steps()); ++step) out_.copy(Copy::gather, step);
    started_ = true;
  }

  void finish() override {
    if (!std::exchange(started_, false)) {
      throw std::logic_error("a transport's exchange is finished before it is started");
    }
    std::size_t const steps = std::max(out_.steps(), in_.steps());
    for (std::size_t step = 0; step < steps; ++step) move(step);
    arrived_.record(in_.stream);
    arrived_.make_wait(compute_);
    for (Lane const* lane : {&out_, &in_})
      flights_.insert(flights_.end(), lane->flights.begin(), lane->flights.end());
  }

  void complete(std::string const&) override { PLAIT_CHECK_CUDA(cudaStreamSynchronize(in_.stream)); }
  std::vector<Flight> take_flights() override { return std::exchange(flights_, {}); }
  void barrier(std::string const& what) override { inner_->barrier(what); }
  Traffic traffic() const override { return inner_->traffic(); }

 private:
  /// Chunk number `step` of every message that has so many: both sides cut alike, so the steps match.
  void move(std::size_t step) {
    out_.copied[step % buffers].synchronize();
    in_.copied[step % buffers].synchronize();  // its buffer is free again, of this exchange or the one before
    std::vector<std::size_t> sends;
    std::vector<std::size_t> receives;
    inner_->start(
        {.round = round_, .sends = out_.staged(step, sends), .receives = in_.staged(step, receives)},
        keep_alive_);
    inner_->finish();
    if (step < in_.steps()) in_.copy(Copy::scatter, step);
    if (step + buffers < out_.steps()) out_.copy(Copy::gather, step + buffers);
    for (Flight const& part : inner_->take_flights()) {
      bool const sent = part.direction == Flight::Direction::send;
      Flight& whole = sent ? out_.flights[sends[part.message]] : in_.flights[receives[part.message]];
      if (step == 0) whole.start = part.start;
      whole.end = part.end;
    }
  }

  std::unique_ptr<Transport> inner_;
  cudaStream_t compute_;
  Lane out_;
  Lane in_;
  CudaEvent ready_;
  CudaEvent arrived_;
  std::uint64_t round_ = 0;
  std::shared_ptr<void> keep_alive_;
  bool started_ = false;
  std::vector<Flight> flights_;
};

}  // namespace

std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner, void* stream) {
  return std::make_unique<StagedTransport>(std::move(inner), static_cast<cudaStream_t>(stream));
}

}  // namespace plait
