// How the program ends, and the errors that decide it.
#pragma once

#include <stdexcept>

namespace plait {

/// Exit codes, as the help of every subcommand lists them.
enum class ExitCode : int { done = 0, failed = 1, usage = 2, check_failed = 3, peer_lost = 75 };

/// A flag that is wrong: the message names the flag, the value, and what would be accepted.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the world's other ranks already know and rank 0 has already printed: nothing is left but to leave.
class Reported : public std::exception {
 public:
  explicit Reported(ExitCode code) : code_(code) {}
  [[nodiscard]] ExitCode code() const { return code_; }
  [[nodiscard]] char const* what() const noexcept override { return "already reported"; }

 private:
  ExitCode code_;
};

/// The exit code that an error stands for.
[[nodiscard]] ExitCode exit_code(std::exception const& error);

}  // namespace plait
