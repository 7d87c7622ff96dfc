// From timed folds, merges and exchanges to a machine's numbers: least squares of relative error, none below
// 0.
#pragma once

#include <span>
#include <vector>

#include "plait/machine.hpp"
#include "plait/work.hpp"

namespace plait {

/// One measurement for a fit: seconds = Σ factors[i] · x[i].
struct Observation {
  std::vector<double> factors;
  double seconds = 0.0;
  double weight = 1.0;
};

/// The x ≥ 0 with the least Σ weight · log²(predicted / seconds): errors count in proportion, so that short
/// steps weigh as much as long ones, and half as much counts like twice as much. Tries each set of unknowns
/// that may differ from 0.
/// @param observations  each with as many factors, at most 8, and seconds above 0
/// @throws std::invalid_argument if they are not so, or there are none
[[nodiscard]] std::vector<double> fit_non_negative(std::span<Observation const> observations);

/// One fold, alone on its rank.
struct TimedFold {
  FoldWork work;
  double seconds = 0.0;
};

/// One merge or finish.
struct TimedStep {
  double bytes = 0.0;  ///< that it touches
  double seconds = 0.0;
};

/// An exchange in which a rank sends so many equal messages to one peer and receives as many.
struct TimedExchange {
  double messages = 1.0;
  double bytes = 0.0;  ///< of each message
  double seconds = 0.0;
};

/// Sets fold_seconds, flops_per_second, step_seconds and memory_bytes_per_second. `units` and `tile_rows` are
/// read. The machine has one memory rate, which folds and steps may disagree on: folds decide, for nearly all
/// of a plan's time is theirs, and steps (merges and finishes) have a say where folds leave it open.
/// Long folds weigh more.
/// @throws std::invalid_argument if the folds say nothing of the rate of flops
void fit_steps(std::span<TimedFold const> folds, std::span<TimedStep const> steps, Machine& machine);

/// Sets edge_keys, given what fit_steps sets: the least squares of the relative errors of folds under masks
/// with sloped edges. Not below 0.
void fit_edges(std::span<TimedFold const> folds, Machine& machine);

/// latency + messages · (message_seconds + bytes / rate): the time of an exchange in a simulation.
[[nodiscard]] double seconds_of(TimedExchange const& exchange, Link const& link);
/// The link for which these are nearest to the measured times; long exchanges weigh more. A rate that cannot
/// be told from infinity is 1e15 bytes/s.
[[nodiscard]] Link fit_link(std::span<TimedExchange const> exchanges);

/// Largest |predicted / measured − 1| of the folds and steps; of the exchanges.
[[nodiscard]] double worst_error(std::span<TimedFold const> folds, std::span<TimedStep const> steps,
                                 Machine const& machine);
[[nodiscard]] double worst_error(std::span<TimedExchange const> exchanges, Link const& link);

}  // namespace plait
