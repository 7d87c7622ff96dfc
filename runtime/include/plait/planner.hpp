// Chooses the strategy: of all plans that are valid, the one that takes the least time, or nearly, and then
// the least memory.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plait/plan.hpp"
#include "plait/simulate.hpp"
#include "plait/strategy.hpp"

namespace plait {

/// A plan that was written out and simulated.
struct Weight {
  double seconds = 0.0;           ///< predicted
  Spent critical = {};            ///< what they are made of
  std::uint64_t bytes_max = 0;    ///< sent by the rank that sends most
  std::uint64_t slots_bytes = 0;  ///< of the rank that needs most
};

/// A plan that was considered.
struct Candidate {
  std::string strategy;
  std::string layout;
  std::string refused = {};           ///< why it cannot be; empty if it can
  double least_seconds = 0.0;         ///< it takes no less
  std::optional<Weight> weight = {};  ///< none: refused, or given up, or too large to be written out
  std::optional<double> estimated_seconds = {};  ///< if it was too large
};

/// Which candidates are weighed, that is, written out and simulated.
enum class Weigh : std::uint8_t {
  best,     ///< those that may be the best, until plans of `steps_to_weigh` steps have been weighed
  all,      ///< all, however large they are
  sampled,  ///< none: the programs of a few ranks are all that is known of them
};

/// Sends, receives, folds, merges and finishes of all ranks: a core weighs so many in some 30 ms. Plans of
/// 256 ranks, in most of which every rank meets every other, have about as many.
inline constexpr double steps_to_weigh = 300e3;

/// Which of the plans is taken that are as good as each other.
struct TieRule {
  double share = 0.01;       ///< predicted times that differ by no more than so much of the lesser are alike
  bool bytes_first = false;  ///< fewest bytes, then least time; else least memory, then fewest bytes
};
/// Where the cores that compute move bytes too, what plans take is less sure, and what they send counts most:
/// 3%, bytes first (picks over 240 measured cases: bench/results/truth/notes.md). Else 1%, memory first.
[[nodiscard]] TieRule tie_rule(Machine const& machine);

/// The fastest plan, where another one that is nearly as fast was taken: @see TieRule.
struct Traded {
  std::string strategy;
  std::string layout;
  double seconds = 0.0;           ///< predicted
  std::uint64_t slots_bytes = 0;  ///< of the rank that needs most
  std::uint64_t bytes_max = 0;    ///< sent by the rank that sends most
  std::uint64_t taken_slots_bytes = 0;
  std::uint64_t taken_bytes_max = 0;
};

struct Choice {
  Plan plan;
  std::string layout;
  std::vector<Candidate> candidates;          ///< all that there are, in a fixed order
  double predicted_seconds = 0.0;             ///< of the plan
  std::optional<Simulation> simulation = {};  ///< if it was weighed; else the prediction is an estimate
  std::vector<int> sampled = {};              ///< if it was not written out: whose programs are
  std::optional<Traded> traded = {};          ///< if it is not the fastest
};

/// Considers the candidates that `strategy` and `layout` allow ("auto": all; a strategy's name without a
/// grid: all grids that fit; "auto" for the layout: the first even one of contiguous, zigzag and balanced,
/// and those before it, contiguous alone for fewer queries than ranks, and root for up to 4,096 queries of
/// more keys). Of those whose predicted time is within a tie (`tie_rule`) of the least it takes the one with
/// the least memory beside the tensors on the rank that needs most; of equals the one whose busiest sender
/// sends the fewest bytes, then the fastest, then the first. Or, by the other rule, the one that sends the
/// fewest bytes, then the fastest, then the first. Deterministic: it counts steps, not seconds, so that all
/// ranks choose the same.
///
/// With Weigh::best, the programs of a few ranks tell how long each plan takes at least, and how much memory
/// and how many bytes it needs at least; the most promising are weighed first. Given up are those that are
/// certain to take longer than the best of them by more than a tie, and those that need more memory (or
/// bytes) than what would be taken and are certain not to be faster than that by more than a tie: what is
/// taken is what Weigh::all finds. A plan with which more than `steps_to_weigh` would have been weighed is
/// not: the programs of a few ranks stand for it, for its memory and its bytes too, and its time is estimated
/// as the geometric mean of what the slowest of them takes alone and of what they take in lockstep
/// (SampledSeconds; bench/results/planning.md: how well that chooses), unless some of them tell that it will
/// be too high. A candidate without rivals is always weighed.
/// @param reduce  Reduce::native weighs only plans whose states meet in MPI's own reduction; those are not
/// weighed otherwise
/// @returns the whole plan
/// @throws InvalidProblem if none is possible, with the reasons
[[nodiscard]] Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy,
                                 std::string_view layout, Machine const& machine = {},
                                 Reduce reduce = Reduce::p2p, Weigh weigh = Weigh::best);

/// The same choice, but a plan that was not weighed is not written out: Choice::plan has the programs of
/// Choice::sampled alone (make_plan's `only`).
[[nodiscard]] Choice select_plan(Problem const& problem, int ranks, std::string_view strategy,
                                 std::string_view layout, Machine const& machine = {},
                                 Reduce reduce = Reduce::p2p, Weigh weigh = Weigh::best);

}  // namespace plait
