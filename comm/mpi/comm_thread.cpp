#include "comm_thread.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "call.hpp"

namespace plait {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// How long the thread sleeps between polls.
class BackOff {
 public:
  enum class For : std::uint8_t { questions, operations, waiting };

  void moved() { *this = {}; }
  /// After a poll without progress. While a rank waits for an operation the thread has its core to itself and
  /// does not sleep for a while: what arrives is late otherwise. Else it sleeps ever longer, so that the
  /// cores are left to the folds; with nothing to do but answer questions it may sleep longest.
  [[nodiscard]] std::chrono::microseconds pause(For reason) {
    constexpr int spins = 50;
    constexpr auto spinning = 2ms;
    bool const waits = reason == For::waiting;
    if (waits && !waits_) waits_since_ = Clock::now();
    waits_ = waits;
    if (waits_ && Clock::now() - waits_since_ < spinning) return 0us;
    if (idle_ < spins) return 0us;
    auto const longest = reason == For::questions ? 5000us : 500us;
    return std::min<std::chrono::microseconds>(longest, 10us * (idle_ - spins + 1));
  }
  void idled() {
    constexpr int most = 1000;  // from here on the pause is the longest; a world may be idle for months
    idle_ = std::min(idle_ + 1, most);
  }

 private:
  int idle_ = 0;  ///< polls in a row
  bool waits_ = false;
  Clock::time_point waits_since_;  ///< or since something moved
};

/// Asks the system to run this thread as soon as it can: it works little, and the folds of all ranks wait for
/// it. Without the right to ask (root, or RLIMIT_NICE) nothing changes.
void prefer_this_thread() {
  constexpr int nice = -10;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), nice);
}

/// Runs a function on the communication thread, once.
class Once : public Operation {
 public:
  explicit Once(std::function<void()> work) : work_(std::move(work)) {}
  Status poll() override {
    work_();
    return Status::done;
  }

 private:
  std::function<void()> work_;
};

/// Collective inside MPI: who is missing cannot be asked, so the bound is not the world's timeout, which may
/// be short.
class Duplication : public Operation {
 public:
  static constexpr auto set_up_time = 60s;

  explicit Duplication(MPI_Comm parent) : parent_(parent) {}

  Status poll() override {
    if (request_ == MPI_REQUEST_NULL) {
      check_mpi(MPI_Comm_idup(parent_, &communicator_, &request_));
      started_ = Clock::now();
    }
    int done = 0;
    check_mpi(MPI_Test(&request_, &done, MPI_STATUS_IGNORE));
    if (done != 0) {
      check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN));
      return Status::done;
    }
    if (Clock::now() - started_ > set_up_time) {
      throw PeerLost(
          fmt::format("a communicator could not be duplicated within {:.1f} s: not every rank takes part",
                      std::chrono::duration<double>(set_up_time).count()));
    }
    return Status::idle;
  }
  [[nodiscard]] MPI_Comm communicator() const { return communicator_; }

 private:
  MPI_Comm parent_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  MPI_Request request_ = MPI_REQUEST_NULL;
  Clock::time_point started_;
};

}  // namespace

World::CommThread::CommThread(MPI_Comm parent, std::chrono::milliseconds timeout)
    : timeout_(timeout), thread_([this] { loop(); }) {
  try {
    communicator_ = duplicate(parent);
    control_ = duplicate(communicator_);
    run(std::make_shared<Once>([this] {
      check_mpi(MPI_Comm_rank(communicator_, &rank_));
      check_mpi(MPI_Comm_size(communicator_, &size_));
      liveness_ = std::make_unique<Liveness>(control_, size_, timeout_);
    }));
  } catch (...) {
    stop();
    throw;
  }
}

World::CommThread::~CommThread() {
  run(std::make_shared<Once>([this] {
    if (failed_.empty()) liveness_.reset();
  }));
  free(control_);
  free(communicator_);
  stop();
}

void World::CommThread::stop() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
  // Requests of failed and unfinished operations may be pending for ever, and MPI may still write to their
  // memory: leak it on purpose.
  if (failed_.empty()) return;
  (void)liveness_.release();
  (void)new std::vector<std::shared_ptr<Operation>>(std::move(failed_));
}

void World::CommThread::submit(std::shared_ptr<Operation> operation) {
  {
    std::lock_guard const lock(mutex_);
    submitted_.push_back(std::move(operation));
  }
  wake_.notify_one();
}

void World::CommThread::await(Operation& operation, std::future<void>& done) {
  {
    std::lock_guard const lock(mutex_);
    operation.awaited_ = true;
  }
  wake_.notify_one();
  done.get();
}

void World::CommThread::run(std::shared_ptr<Operation> const& operation) {
  std::future<void> done = operation->future();
  submit(operation);
  await(*operation, done);
}

void World::CommThread::abandon(Operation& operation, std::future<void> const& done) {
  operation.abandoned_ = true;
  done.wait();
}

MPI_Comm World::CommThread::duplicate(MPI_Comm parent) {
  auto const duplication = std::make_shared<Duplication>(parent);
  run(duplication);
  return duplication->communicator();
}

void World::CommThread::free(MPI_Comm communicator) {
  run(std::make_shared<Once>([this, communicator]() mutable {
    // Called by destructors, which have no one to tell of a failure.
    if (failed_.empty()) (void)MPI_Comm_free(&communicator);
  }));
}

void World::CommThread::fail(std::shared_ptr<Operation> const& operation) {
  failed_.push_back(operation);
  operation->promise_.set_exception(std::current_exception());
}

bool World::CommThread::poll(std::vector<std::shared_ptr<Operation>>& active) {
  bool moved = liveness_ && liveness_->poll();
  std::erase_if(active, [&](std::shared_ptr<Operation> const& operation) {
    try {
      if (operation->abandoned_) throw CommError("an operation was abandoned");
      Operation::Status const status = operation->poll();
      moved = moved || status != Operation::Status::idle;
      if (status != Operation::Status::done) return false;
    } catch (PeerLost const&) {
      peer_lost_ = true;
      fail(operation);
      return true;
    } catch (...) {
      fail(operation);
      return true;
    }
    operation->promise_.set_value();
    return true;
  });
  return moved;
}

void World::CommThread::loop() {
  prefer_this_thread();
  std::vector<std::shared_ptr<Operation>> active;
  auto const polls_for = [&active] {
    if (active.empty()) return BackOff::For::questions;
    bool const waiting = std::ranges::any_of(active, [](auto const& one) { return one->awaited_; });
    return waiting ? BackOff::For::waiting : BackOff::For::operations;
  };
  for (BackOff back_off;;) {
    {
      std::unique_lock lock(mutex_);
      auto const pause = back_off.pause(polls_for());
      if (submitted_.empty() && !stop_ && pause > 0us) wake_.wait_for(lock, pause);
      if (stop_) {  // what is unfinished stays as it is: see stop
        failed_.insert(failed_.end(), active.begin(), active.end());
        return;
      }
      if (!submitted_.empty()) back_off.moved();
      for (auto& operation : submitted_) active.push_back(std::move(operation));
      submitted_.clear();
    }
    if (poll(active)) {
      back_off.moved();
    } else {
      back_off.idled();
      std::this_thread::yield();
    }
  }
}

}  // namespace plait
