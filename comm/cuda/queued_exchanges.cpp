#include "queued_exchanges.hpp"

#include <fmt/format.h>

#include <set>
#include <thread>
#include <utility>

#include "call.hpp"
#include "plait/comm_error.hpp"

namespace plait {
namespace {

Exchange without_memory(Exchange const& exchange) {
  Exchange bare{.round = exchange.round, .sends = {}, .receives = {}};
  for (Message const& message : exchange.sends) bare.sends.push_back({message.peer, message.block, {}});
  for (Message const& message : exchange.receives) bare.receives.push_back({message.peer, message.block, {}});
  return bare;
}

std::vector<int> ranks_of(Exchange const& exchange) {
  std::set<int> ranks;
  for (Message const& message : exchange.sends) ranks.insert(message.peer);
  for (Message const& message : exchange.receives) ranks.insert(message.peer);
  return {ranks.begin(), ranks.end()};
}

}  // namespace

QueuedExchanges::~QueuedExchanges() {
  for (Outstanding const& exchange : outstanding_) free_events(exchange);
}

void QueuedExchanges::begin(Exchange const& exchange, std::shared_ptr<void> keep_alive) {
  Outstanding& now = outstanding_.emplace_back();
  now.words = without_memory(exchange);
  now.started = Clock::now();
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

void QueuedExchanges::await(std::size_t most, std::function<void()> const& poll) {
  while (outstanding_.size() > most) await_oldest(poll);
}

void QueuedExchanges::await_oldest(std::function<void()> const& poll) {
  Outstanding const& oldest = outstanding_.front();
  std::unique_ptr<PeerWait> waiting;
  while (cudaEventQuery(oldest.end) == cudaErrorNotReady) {
    poll();
    // Only once the exchange has begun: before that it waits for this rank's own work.
    if (!waiting && cudaEventQuery(oldest.begin) == cudaSuccess) {
      waiting.reset(new PeerWait(wait_for(oldest, ranks_of(oldest.words))));
    }
    if (waiting) {
      waiting->pause();
    } else {
      std::this_thread::yield();
    }
  }
  PLAIT_CHECK_CUDA(cudaEventQuery(oldest.end));
  float milliseconds = 0.0f;
  PLAIT_CHECK_CUDA(cudaEventElapsedTime(&milliseconds, oldest.begin, oldest.end));
  auto const length =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(milliseconds));
  for (auto const direction : {Flight::Direction::send, Flight::Direction::receive}) {
    bool const sent = direction == Flight::Direction::send;
    for (std::size_t i = 0; i < (sent ? oldest.words.sends : oldest.words.receives).size(); ++i) {
      flights_.push_back({.direction = direction,
                          .round = oldest.words.round,
                          .message = i,
                          .start = oldest.started,
                          .end = oldest.started + length});
    }
  }
  free_events(oldest);
  outstanding_.pop_front();
}

PeerWait QueuedExchanges::wait_for(Outstanding const& exchange, std::vector<int> ranks) const {
  return PeerWait(
      world_, std::move(ranks),
      [this, round = exchange.words.round] {
        return fmt::format("{}, round {}", world_.describe(world_.rank()), round);
      },
      [this, &exchange] { return what(exchange); });
}

std::string QueuedExchanges::block_name(std::uint64_t block) const {
  return namer_ ? namer_(block) : fmt::format("block {}", block);
}

std::string QueuedExchanges::what(Outstanding const& exchange) const {
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
  list(exchange.words.sends, "sending", "to");
  list(exchange.words.receives, "receiving", "from");
  return text;
}

std::string QueuedExchanges::where(Outstanding const& exchange) const {
  return fmt::format("round {}: {}", exchange.words.round, what(exchange));
}

void QueuedExchanges::free_events(Outstanding const& exchange) {
  (void)cudaEventDestroy(exchange.begin);
  (void)cudaEventDestroy(exchange.end);
}

}  // namespace plait
