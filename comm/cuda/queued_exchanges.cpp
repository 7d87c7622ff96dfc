#include "queued_exchanges.hpp"

#include <fmt/format.h>

#include <thread>
#include <utility>

#include "call.hpp"
#include "plait/comm_error.hpp"

namespace plait {

QueuedExchanges::~QueuedExchanges() {
  for (Outstanding const& exchange : outstanding_) free_events(exchange);
}

void QueuedExchanges::begin(Exchange const& exchange, std::shared_ptr<void> keep_alive) {
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
}

void QueuedExchanges::end() {
  PLAIT_CHECK_CUDA(cudaEventRecord(outstanding_.back().end, stream_));
}

void QueuedExchanges::lead(cudaStream_t follower) const {
  PLAIT_CHECK_CUDA(cudaStreamWaitEvent(follower, outstanding_.back().end, 0));
}

void QueuedExchanges::await(std::size_t most, std::function<void(std::string const&)> const& poll) {
  while (outstanding_.size() > most) await_oldest(poll);
}

void QueuedExchanges::await_oldest(std::function<void(std::string const&)> const& poll) {
  Outstanding const& oldest = outstanding_.front();
  Clock::time_point const start = Clock::now();
  while (cudaEventQuery(oldest.end) == cudaErrorNotReady) {
    poll(where(oldest));
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

void QueuedExchanges::give_up(std::string const& where) const {
  throw PeerLost(fmt::format("{}, {}: no progress for {:.1f} s", world_.describe(world_.rank()), where,
                             std::chrono::duration<double>(world_.timeout()).count()));
}

std::string QueuedExchanges::block_name(std::uint64_t block) const {
  return namer_ ? namer_(block) : fmt::format("block {}", block);
}

std::string QueuedExchanges::describe(Exchange const& exchange) const {
  constexpr std::size_t most_characters = 200;
  std::string text;
  auto const list = [&](std::vector<Message> const& messages, char const* verb, char const* preposition) {
    for (Message const& message : messages) {
      if (text.ends_with("…")) return;
      text += fmt::format("{}{} {} {} {}", text.empty() ? "" : ", ", verb, block_name(message.block),
                          preposition, world_.describe(message.peer));
      if (text.size() > most_characters) text += ", …";
    }
  };
  list(exchange.sends, "sending", "to");
  list(exchange.receives, "receiving", "from");
  return text;
}

std::string QueuedExchanges::where(Outstanding const& exchange) {
  return fmt::format("round {}: {}", exchange.round, exchange.what);
}

void QueuedExchanges::free_events(Outstanding const& exchange) {
  (void)cudaEventDestroy(exchange.begin);
  (void)cudaEventDestroy(exchange.end);
}

}  // namespace plait
