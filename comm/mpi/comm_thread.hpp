// The one thread that makes MPI calls: it polls operations until each is done, and backs off while nothing
// moves.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "liveness.hpp"
#include "plait/world.hpp"

namespace plait {

/// Something that the communication thread drives to its end.
class Operation {
 public:
  enum class Status : std::uint8_t { idle, moved, done };

  virtual ~Operation() = default;
  /// Makes what progress there is; called by the communication thread alone. Throws to fail, and is then kept
  /// for the rest of the process: its requests may still write to memory that it holds.
  virtual Status poll() = 0;
  /// Ready when the operation is done or has failed. Taken once.
  [[nodiscard]] std::future<void> future() { return promise_.get_future(); }

 private:
  friend class World::CommThread;
  std::promise<void> promise_;
  std::atomic<bool> abandoned_ = false;
  bool awaited_ = false;  ///< under the thread's mutex
};

class World::CommThread {
 public:
  /// Duplicates `parent`. @param timeout  of waits for other ranks @throws PeerLost
  CommThread(MPI_Comm parent, std::chrono::milliseconds timeout);
  ~CommThread();
  CommThread(CommThread const&) = delete;
  CommThread& operator=(CommThread const&) = delete;

  /// Hands an operation to the thread; waits for nothing.
  void submit(std::shared_ptr<Operation> operation);
  /// Waits for the end of an operation that was submitted; `done` is its future. Rethrows its failure.
  void await(Operation& operation, std::future<void>& done);
  /// Hands it over and waits for its end. Rethrows its failure.
  void run(std::shared_ptr<Operation> const& operation);
  /// Returns when the operation is not polled any more; unless it had just ended, it counts as failed. `done`
  /// is its future.
  static void abandon(Operation& operation, std::future<void> const& done);
  /// A communicator of its own, like the world's. Collective. @throws PeerLost
  [[nodiscard]] MPI_Comm duplicate(MPI_Comm parent);
  /// Frees a communicator, unless an operation has failed: then its requests may be pending.
  void free(MPI_Comm communicator);

  [[nodiscard]] MPI_Comm communicator() const { return communicator_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  /// Whether an operation has given up on a peer.
  [[nodiscard]] bool peer_lost() const { return peer_lost_; }
  /// For operations, on the communication thread.
  [[nodiscard]] Liveness& liveness() { return *liveness_; }

 private:
  /// Ends the thread. Keeps for ever what MPI may still write to.
  void stop();
  void loop();
  /// Keeps the operation, and hands the exception in flight to whoever waits for it.
  void fail(std::shared_ptr<Operation> const& operation);
  /// Polls all; returns whether any moved.
  bool poll(std::vector<std::shared_ptr<Operation>>& active);

  std::chrono::milliseconds timeout_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  MPI_Comm control_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::unique_ptr<Liveness> liveness_;
  std::vector<std::shared_ptr<Operation>> failed_;
  std::atomic<bool> peer_lost_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Operation>> submitted_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace plait
