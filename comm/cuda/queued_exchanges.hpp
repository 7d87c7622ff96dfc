// Exchanges that lie on a CUDA stream: when each was in flight, and waits for their end that do not last for
// ever.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../mpi/peer_wait.hpp"
#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

/// Up to `most_outstanding` exchanges may be under way before the host waits for the oldest: that bounds how
/// late an error is noticed.
class QueuedExchanges {
 public:
  static constexpr std::size_t most_outstanding = 2;

  /// @param stream  what the exchanges are given to
  QueuedExchanges(World const& world, cudaStream_t stream) : world_(world), stream_(stream) {}
  ~QueuedExchanges();
  QueuedExchanges(QueuedExchanges const&) = delete;
  QueuedExchanges& operator=(QueuedExchanges const&) = delete;

  void name_blocks(std::function<std::string(std::uint64_t)> namer) { namer_ = std::move(namer); }

  /// The exchange begins with what the stream is given next. `keep_alive` is held until it has ended.
  void begin(Exchange const& exchange, std::shared_ptr<void> keep_alive);
  /// It ends with what the stream was given last.
  void end();
  /// What `follower` is given next follows the latest exchange, which has its end.
  void lead(cudaStream_t follower) const;

  /// How many are under way.
  [[nodiscard]] std::size_t outstanding() const { return outstanding_.size(); }
  /// Returns when at most so many are under way. @param poll  called again and again meanwhile: throws if
  /// something has failed @throws PeerLost if one has begun and its ranks must be given up
  void await(
      std::size_t most, std::function<void()> const& poll = [] {});

  /// Of a wait for `ranks` in the latest exchange.
  [[nodiscard]] PeerWait wait_for(std::vector<int> ranks) const {
    return wait_for(outstanding_.back(), std::move(ranks));
  }

  /// "round 3: receiving kv [0, 512) from rank 3 (host b)": the latest.
  [[nodiscard]] std::string where() const { return where(outstanding_.back()); }
  /// The same of the oldest that is under way.
  [[nodiscard]] std::string where_oldest() const { return where(outstanding_.front()); }
  [[nodiscard]] std::string block_name(std::uint64_t block) const;

  [[nodiscard]] std::vector<Flight> take_flights() { return std::exchange(flights_, {}); }

 private:
  using Clock = std::chrono::steady_clock;
  /// Between two events of the stream.
  struct Outstanding {
    Exchange words;  ///< what is sent and received, without its memory
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    Clock::time_point started;
    std::shared_ptr<void> keep_alive;
  };

  void await_oldest(std::function<void()> const& poll);
  /// "receiving kv [0, 512) from rank 3 (host b)"
  [[nodiscard]] std::string what(Outstanding const& exchange) const;
  [[nodiscard]] std::string where(Outstanding const& exchange) const;
  [[nodiscard]] PeerWait wait_for(Outstanding const& exchange, std::vector<int> ranks) const;
  static void free_events(Outstanding const& exchange);

  World const& world_;
  cudaStream_t stream_;
  std::function<std::string(std::uint64_t)> namer_;
  std::deque<Outstanding> outstanding_;
  std::vector<Flight> flights_;
};

}  // namespace plait
