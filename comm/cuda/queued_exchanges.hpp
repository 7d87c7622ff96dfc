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

  /// Returns when at most so many are under way. @param poll  called again and again meanwhile: throws if
  /// something has failed, and is told where @throws PeerLost if one has begun and does not end in time
  void await(
      std::size_t most,
      std::function<void(std::string const& where)> const& poll = [](std::string const&) {});

  /// @throws PeerLost: nothing has moved for the world's timeout @param where  as `await` tells it
  [[noreturn]] void give_up(std::string const& where) const;

  /// "round 3: receiving kv [0, 512) from rank 3 (host b)": the latest.
  [[nodiscard]] std::string where() const { return where(outstanding_.back()); }
  [[nodiscard]] std::string block_name(std::uint64_t block) const;

  [[nodiscard]] std::vector<Flight> take_flights() { return std::exchange(flights_, {}); }

 private:
  using Clock = std::chrono::steady_clock;
  /// Between two events of the stream.
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

  void await_oldest(std::function<void(std::string const& where)> const& poll);
  [[nodiscard]] std::string describe(Exchange const& exchange) const;
  [[nodiscard]] static std::string where(Outstanding const& exchange);
  static void free_events(Outstanding const& exchange);

  World const& world_;
  cudaStream_t stream_;
  std::function<std::string(std::uint64_t)> namer_;
  std::deque<Outstanding> outstanding_;
  std::vector<Flight> flights_;
};

}  // namespace plait
