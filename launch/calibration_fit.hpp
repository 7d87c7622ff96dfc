// From timed folds, merges and exchanges to a machine's numbers: least squares of relative error, none below
// 0.
#pragma once

#include <span>
#include <vector>

#include "plait/machine.hpp"
#include "plait/simulate.hpp"
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

/// One merge.
struct TimedMerge {
  double bytes = 0.0;  ///< that it touches
  double seconds = 0.0;
};

/// An exchange in which a rank sends so many equal messages to one peer and receives as many.
struct TimedExchange {
  double messages = 1.0;
  double bytes = 0.0;  ///< of each message
  double seconds = 0.0;
};

/// Sets fold_seconds, flops_per_second, memory_bytes_per_second and key_bytes_per_second. `units` and
/// `tile_rows` are read. Long folds weigh more. Of several units, some folds should take longer to read their
/// keys than to multiply, or the rate of keys is taken to be boundless.
/// @throws std::invalid_argument if the folds say nothing of the rate of flops
void fit_folds(std::span<TimedFold const> folds, Machine& machine);

/// Sets step_seconds and merge_bytes_per_second. Long merges weigh more.
void fit_merges(std::span<TimedMerge const> merges, Machine& machine);

/// A fold whose mask has sloped edges, and one of the same rows and keys without a mask.
struct TimedEdge {
  TimedFold cut;
  TimedFold whole;
};

/// Sets edge_keys, given what fit_folds sets: the least squares of the relative errors of the cut folds. What
/// the machine's numbers miss of the whole fold they miss of the cut one too, in proportion: some keys more
/// take less time than shapes are off. Not below 0.
void fit_edges(std::span<TimedEdge const> edges, Machine& machine);

/// One round in which a rank folds while bytes move.
struct TimedRound {
  double bytes = 0.0;         ///< sent and received
  double more_seconds = 0.0;  ///< than the fold takes without
};

/// Sets round_seconds and host_seconds_per_byte: the straight line nearest to the rounds, neither below 0.
void fit_rounds(std::span<TimedRound const> rounds, Machine& machine);

/// One run of a plan. The plan must outlive it.
struct TimedPlan {
  Plan const* plan = nullptr;
  double seconds = 0.0;
};

/// How many times as fast whole plans compute and move bytes as their pieces did.
struct Speeds {
  double computing = 1.0;
  double moving = 1.0;
  double exposed = 1.0;  ///< beside that, where nothing is computed meanwhile
};
/// The machine with all that its ranks compute, and all that its links do, so many times as fast; rates stay
/// at 1e15 at most, shares at 1.
[[nodiscard]] Machine with_speeds(Machine machine, Speeds speeds);
/// The speeds, each within a half and 2, and exposed links no faster than others, for which simulations are
/// nearest to the measured times: least squares of the logarithms, and of the speeds' own, so that what plans
/// tell weakly stays near 1.
[[nodiscard]] Speeds fit_speeds(std::span<TimedPlan const> plans, Machine const& machine);

/// latency + messages · (message_seconds + bytes / rate): the time of an exchange in a simulation.
[[nodiscard]] double seconds_of(TimedExchange const& exchange, Link const& link);
/// The link for which these are nearest to the measured times; long exchanges weigh more. A rate that cannot
/// be told from infinity is 1e15 bytes/s.
[[nodiscard]] Link fit_link(std::span<TimedExchange const> exchanges);

/// One message, timed by its sender alone.
struct TimedSend {
  double bytes = 0.0;
  double seconds = 0.0;  ///< until the sender may go on
};
/// Link::buffer_bytes: the most that sends had handed over and their link could not yet have carried, of
/// those that ended before `late_seconds` / 2, though their receiver began so much later than they did.
[[nodiscard]] double fit_buffer(std::span<TimedSend const> sends, double late_seconds, Link const& link);

/// Largest |predicted / measured − 1|.
[[nodiscard]] double worst_error(std::span<TimedFold const> folds, Machine const& machine);
[[nodiscard]] double worst_error(std::span<TimedMerge const> merges, Machine const& machine);
[[nodiscard]] double worst_error(std::span<TimedExchange const> exchanges, Link const& link);

}  // namespace plait
