// Who is alive: silent peers are asked on a control communicator, and every communication thread answers,
// also while its rank computes. So a deadline can tell a peer that is busy from one that is stopped, dead or
// cut off.
#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plait/world.hpp"

namespace plait {

/// Driven by the communication thread for as long as the world lives.
class Liveness {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param control  a communicator that nothing else uses
  Liveness(MPI_Comm control, int size, std::chrono::milliseconds timeout);
  /// Cancels the receive that is always posted.
  ~Liveness();
  Liveness(Liveness const&) = delete;
  Liveness& operator=(Liveness const&) = delete;

  /// Answers what was asked; returns whether anything was. Throws nothing, for it serves no operation in
  /// particular: an error ends it, and is told by `ask`.
  bool poll() noexcept;
  /// Asks `peer` for a sign of life, at most once in a while. @throws CommError also what poll met with
  void ask(int peer);
  /// When `peer` last answered; the clock's epoch if never.
  [[nodiscard]] Clock::time_point last_heard(int peer) const {
    return heard_[static_cast<std::size_t>(peer)];
  }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }

 private:
  bool answer();
  void post_receive();
  void send(int peer, int tag);

  MPI_Comm control_;
  std::chrono::milliseconds timeout_;
  char received_ = 0;
  MPI_Request receive_ = MPI_REQUEST_NULL;
  std::vector<MPI_Request> sends_;
  std::vector<Clock::time_point> asked_;
  std::vector<Clock::time_point> heard_;
  std::exception_ptr failure_;
};

/// How long one wait may go on. A peer is given up when it has been silent for the timeout: nothing of the
/// wait moved, and it answered no question. A peer that answers but does not do its part is given up after
/// `patience` timeouts: a rank may well fold for minutes between two transfers.
class Patience {
 public:
  using Clock = Liveness::Clock;
  static constexpr int patience = 10;

  explicit Patience(Liveness& liveness) : liveness_(liveness), moved_(Clock::now()) {}

  struct Lost {
    int peer = 0;
    double silent_seconds = 0.0;
    bool answers = false;  ///< it is alive, but does not do its part

    /// "has given no sign of life for 3.0 s", or "is alive but has not … for 30.0 s".
    /// @param part  what it should have done: "moved its part"
    [[nodiscard]] std::string describe(std::string_view part) const;
  };

  /// The wait got further.
  void progress() { moved_ = Clock::now(); }
  /// The first of the peers waited for that must be given up now. Asks those that have been silent for a
  /// while.
  [[nodiscard]] std::optional<Lost> lost(std::span<int const> peers);

 private:
  Liveness& liveness_;
  Clock::time_point moved_;
};

}  // namespace plait
