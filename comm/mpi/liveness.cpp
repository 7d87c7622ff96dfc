#include "liveness.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "call.hpp"

namespace plait {
namespace {

constexpr int question_tag = 1;
constexpr int answer_tag = 2;
char const sign_of_life = 0;

}  // namespace

Liveness::Liveness(MPI_Comm control, int size, std::chrono::milliseconds timeout)
    : control_(control),
      timeout_(timeout),
      asked_(static_cast<std::size_t>(size)),
      heard_(static_cast<std::size_t>(size)) {
  post_receive();
}

Liveness::~Liveness() {
  MPI_Cancel(&receive_);
  MPI_Request_free(&receive_);
  for (MPI_Request& request : sends_) MPI_Request_free(&request);
}

void Liveness::post_receive() {
  check_mpi(MPI_Irecv(&received_, 1, MPI_CHAR, MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &receive_));
}

void Liveness::send(int peer, int tag) {
  check_mpi(
      MPI_Isend(&sign_of_life, 1, MPI_CHAR, peer, tag, control_, &sends_.emplace_back(MPI_REQUEST_NULL)));
}

bool Liveness::poll() noexcept {
  if (failure_) return false;
  try {
    return answer();
  } catch (...) {
    failure_ = std::current_exception();
    return false;
  }
}

bool Liveness::answer() {
  std::erase_if(sends_, [](MPI_Request& request) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    return done != 0;
  });
  int arrived = 0;
  MPI_Status status;
  check_mpi(MPI_Test(&receive_, &arrived, &status));
  if (arrived == 0) return false;
  heard_[static_cast<std::size_t>(status.MPI_SOURCE)] = Clock::now();  // a question is a sign of life too
  if (status.MPI_TAG == question_tag) send(status.MPI_SOURCE, answer_tag);
  post_receive();
  return true;
}

void Liveness::ask(int peer) {
  if (failure_) std::rethrow_exception(failure_);
  auto const now = Clock::now();
  auto& asked = asked_[static_cast<std::size_t>(peer)];
  if (now - asked < timeout_ / 8) return;
  asked = now;
  send(peer, question_tag);
}

std::string Patience::Lost::describe(std::string_view part) const {
  if (!answers) return fmt::format("has given no sign of life for {:.1f} s", silent_seconds);
  return fmt::format("is alive but has not {} for {:.1f} s", part, silent_seconds);
}

std::optional<Patience::Lost> Patience::lost(std::span<int const> peers) {
  auto const now = Clock::now();
  auto const timeout = liveness_.timeout();
  if (now - moved_ < timeout / 4) return std::nullopt;
  for (int const peer : peers) {
    liveness_.ask(peer);
    auto const silence = now - std::max(moved_, liveness_.last_heard(peer));
    bool const gone = silence > timeout;
    if (!gone && now - moved_ <= patience * timeout) continue;
    return Lost{.peer = peer,
                .silent_seconds = std::chrono::duration<double>(gone ? silence : now - moved_).count(),
                .answers = !gone};
  }
  return std::nullopt;
}

}  // namespace plait
