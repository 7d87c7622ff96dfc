// The ranks of one job: where each one runs, and the one thread through which they speak MPI.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

namespace plait {

/// Where one rank runs.
struct Place {
  int rank = 0;
  int pid = 0;
  int node = 0;        ///< index of its host among the job's hosts, in order of first rank
  int local_rank = 0;  ///< index among the ranks of its host
  std::string host;
};

struct WorldOptions {
  /// How long a wait may go on without progress and without a sign of life from the peer before PeerLost.
  /// Silent peers are asked, and answer also while they compute; one that answers but does not do its part is
  /// waited for ten times as long.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

/// Ranks of a communicator. Every MPI call that it and its transports make is made by one communication
/// thread, so progress goes on while the caller computes, and no call can block without a deadline. Does not
/// initialise or finalise MPI. Construction and destruction are collective; destroy it before MPI_Finalize.
class [[nodiscard]] World {
 public:
  /// Duplicates `communicator`. @throws CommError if MPI is not initialised with MPI_THREAD_MULTIPLE,
  /// PeerLost if a rank does not take part in time.
  explicit World(MPI_Comm communicator, WorldOptions options = {});
  ~World();
  World(World const&) = delete;
  World& operator=(World const&) = delete;

  [[nodiscard]] int rank() const;
  [[nodiscard]] int size() const;
  [[nodiscard]] std::vector<Place> const& places() const;  ///< one per rank, in rank order
  [[nodiscard]] Place const& place() const;                ///< this rank's
  [[nodiscard]] std::string describe(int rank) const;      ///< for people: "rank 3 (host b)"
  [[nodiscard]] std::chrono::milliseconds timeout() const;

  /// Every rank's bytes, in rank order; lengths may differ. Collective, one at a time.
  /// @throws PeerLost, CommError
  /// @param what  names the exchange in an error ("agreement on the plan")
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine,
                                                               std::string const& what) const;

  /// Returns when every rank has called it. @throws PeerLost
  void barrier(std::string const& what) const;

  /// Ends the whole job: MPI_Abort, then _exit(exit_code) after a grace period; at once, without MPI_Abort,
  /// when a peer has been lost, for a launcher that cannot reach it may hang. Never returns, and runs no
  /// destructors.
  [[noreturn]] void abort(int exit_code) const noexcept;

  class CommThread;
  /// For transports: the thread that makes the MPI calls.
  [[nodiscard]] CommThread& thread() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait
