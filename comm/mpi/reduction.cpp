#include "reduction.hpp"

#include <fmt/format.h>

#include <exception>
#include <limits>
#include <numeric>
#include <utility>

#include "call.hpp"

namespace plait {
namespace {

/// MPI hands its operator a datatype and no context: the Operator hangs on the datatype, under this key.
int operator_key() {
  static int const key = [] {
    int created = MPI_KEYVAL_INVALID;
    check_mpi(MPI_Type_create_keyval(MPI_TYPE_NULL_COPY_FN, MPI_TYPE_NULL_DELETE_FN, &created, nullptr));
    return created;
  }();
  return key;
}

void combine(void* from, void* into, int* count, MPI_Datatype* element) {
  void* found = nullptr;
  int is_there = 0;
  MPI_Type_get_attr(*element, operator_key(), static_cast<void*>(&found), &is_there);
  // Without it the result would be wrong in silence, and nothing can be thrown through MPI.
  if (is_there == 0) std::terminate();
  static_cast<Operator const*>(found)->combine(
      static_cast<std::byte const*>(from), static_cast<std::byte*>(into), static_cast<std::size_t>(*count));
}

}  // namespace

Reduction::Reduction(World::CommThread& thread, MPI_Comm communicator, ReduceScatter work, Operator combine,
                     Naming naming, std::shared_ptr<void> keep_alive)
    : thread_(thread),
      communicator_(communicator),
      work_(std::move(work)),
      operator_(std::move(combine)),
      naming_(std::move(naming)),
      keep_alive_(std::move(keep_alive)),
      patience_(thread.liveness()) {
  for (std::size_t const count : work_.counts) {
    if (count > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      throw CommError(
          fmt::format("{}: {} elements of one rank are too many for MPI to reduce", work_.what, count));
    }
    counts_.push_back(static_cast<int>(count));
  }
}

void Reduction::start() {
  started_ = true;
  patience_.progress();
  check_mpi(MPI_Type_contiguous(static_cast<int>(operator_.element_bytes), MPI_BYTE, &element_));
  check_mpi(MPI_Type_commit(&element_));
  check_mpi(MPI_Type_set_attr(element_, operator_key(), &operator_));
  constexpr int commutes = 1;
  check_mpi(MPI_Op_create(combine, commutes, &op_));
  check_mpi(MPI_Ireduce_scatter(work_.parts.data, work_.result.data, counts_.data(), element_, op_,
                                communicator_, &request_));
}

Operation::Status Reduction::poll() {
  if (!started_) start();
  int done = 0;
  check_mpi(MPI_Test(&request_, &done, MPI_STATUS_IGNORE));
  if (done == 0) {
    give_up_on_lost();
    return Status::idle;
  }
  check_mpi(MPI_Op_free(&op_));
  check_mpi(MPI_Type_free(&element_));
  return Status::done;
}

/// MPI does not tell whose part is missing: all others are asked for a sign of life.
void Reduction::give_up_on_lost() {
  std::vector<int> others(static_cast<std::size_t>(thread_.size()));
  std::iota(others.begin(), others.end(), 0);
  std::erase(others, thread_.rank());
  auto const lost = patience_.lost(others);
  if (!lost) return;
  std::string const who =
      lost->answers ? fmt::format(
                          "all are alive, but not every rank has taken part, or MPI has not moved its part, "
                          "for {:.1f} s",
                          lost->silent_seconds)
                    : fmt::format("{} {}", naming_.peer(lost->peer), lost->describe("taken part"));
  throw PeerLost(
      fmt::format("{}, round {}: {}, while {}", naming_.peer(thread_.rank()), work_.round, who, work_.what));
}

void Reduction::add_traffic(Traffic& traffic) const {
  auto const mine = static_cast<std::size_t>(thread_.rank());
  for (std::size_t peer = 0; peer < work_.counts.size(); ++peer) {
    if (peer == mine) continue;
    traffic.sent[peer] += work_.counts[peer] * operator_.element_bytes;
    traffic.received[peer] += work_.counts[mine] * operator_.element_bytes;
  }
}

}  // namespace plait
