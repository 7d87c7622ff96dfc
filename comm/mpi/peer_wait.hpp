// Waits of a thread that is not the communication thread, for other ranks that do not speak MPI about it.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "plait/world.hpp"

namespace plait {

/// One wait. Where it lasts, the communication thread asks the ranks that are waited for whether they are
/// alive.
class PeerWait {
 public:
  /// @param waiting  "rank 0 (host a), round 3"  @param meanwhile  "receiving kv [0, 512) from rank 3"
  PeerWait(World const& world, std::vector<int> peers, std::function<std::string()> waiting,
           std::function<std::string()> meanwhile);
  ~PeerWait();
  PeerWait(PeerWait const&) = delete;
  PeerWait& operator=(PeerWait const&) = delete;

  /// To be called again and again until what is waited for is there; lets other threads run.
  /// @throws PeerLost once a rank must be given up (Patience), CommError
  void pause();

 private:
  using Clock = std::chrono::steady_clock;
  class Questions;

  World const& world_;
  std::vector<int> peers_;
  std::function<std::string()> waiting_;
  std::function<std::string()> meanwhile_;
  Clock::time_point const start_ = Clock::now();
  std::shared_ptr<Questions> questions_;  ///< none while the wait is short
  std::future<void> answered_;            ///< ready if it must be given up
};

}  // namespace plait
