// How long a plan takes on a machine described by numbers: the plan's own rounds, event by event.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "plait/machine.hpp"
#include "plait/plan.hpp"
#include "plait/timeline.hpp"

namespace plait {

/// Seconds by what they were spent on.
struct Spent {
  double fold = 0.0;
  double merge = 0.0;    ///< and finishes
  double node = 0.0;     ///< transfers within a node: on the link, and waiting for it
  double network = 0.0;  ///< transfers between nodes
  double latency = 0.0;
  [[nodiscard]] double total() const { return fold + merge + node + network + latency; }
};

struct Simulation {
  double seconds = 0.0;                      ///< until the last rank is done
  std::vector<double> exposed_comm_seconds;  ///< per rank: waiting for transfers with nothing to compute
  std::vector<std::uint64_t> network_bytes;  ///< per rank: sent to other nodes
  /// The chain of steps, each of which waited for the one before, that ends last; its total is `seconds`.
  Spent critical;
  int critical_rank = 0;  ///< where it ends
  Timeline timeline;      ///< empty unless asked for
};

enum class Record : std::uint8_t { nothing, timeline };

/// A rank's round: its folds, merges and finishes one after the other, while its transfers move. A transfer
/// is ready once both ranks have begun the round. Both ranks' links of its level, and between nodes both
/// nodes' ports, serve the transfers of a round in the order in which they become ready, each on its own; a
/// transfer arrives when all have served it and the latency has passed. So no link idles while something is
/// ready, as with flows that share it. A round ends for a rank when its steps and its transfers have.
/// While a rank computes, its links may be slower.
/// A reduction is a transfer of each part to its home, and then the merges there: what MPI libraries do
/// instead differs, and is not modelled.
/// @param within  seconds after which it gives up: a Simulation of more seconds than that is of the rounds
/// up to there alone, so its seconds are less than the plan takes, or as many
/// @throws InvalidProblem if a number of the machine cannot be
[[nodiscard]] Simulation simulate(Plan const& plan, Machine const& machine, Record record,
                                  double within = std::numeric_limits<double>::infinity());

/// What the programs of a few ranks tell of the time that a plan takes.
struct SampledSeconds {
  /// What the slowest of them takes when it never waits for another rank to begin a round, to compute, or to
  /// free a link: no more than `simulate` finds for the plan.
  double least = 0.0;
  /// What they take when each round begins for all of them once the slowest is done with the one before: more
  /// waiting than there is among them, but none for other ranks. An estimate, too low or too high.
  double lockstep = 0.0;
};

/// Needs the programs of `ranks` alone. @throws InvalidProblem if a number of the machine cannot be
[[nodiscard]] SampledSeconds sampled_seconds(Plan const& plan, std::span<int const> ranks,
                                             Machine const& machine);

/// SampledSeconds::least of a plan that is being written, round by round: ever more, and in the end no more
/// than of the whole.
class LeastSoFar {
 public:
  /// @throws InvalidProblem if a number of the machine cannot be
  LeastSoFar(std::vector<int> ranks, Machine const& machine);
  ~LeastSoFar();
  LeastSoFar(LeastSoFar const&) = delete;
  LeastSoFar& operator=(LeastSoFar const&) = delete;
  /// @param plan  the same one in each call, with the programs of the ranks as far as they are written
  [[nodiscard]] double seconds(Plan const& plan);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plait
