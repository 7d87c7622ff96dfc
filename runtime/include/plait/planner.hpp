// Chooses the strategy: of all plans that are valid, the one that takes the least time.
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
  std::optional<Weight> weight = {};  ///< none: refused, or given up, as the plan taken takes less
};

/// Which candidates are weighed: all, or those that may be the best.
enum class Weigh : std::uint8_t { best, all };

struct Choice {
  Plan plan;
  std::string layout;
  std::vector<Candidate> candidates;  ///< all that there are, in a fixed order
};

/// Considers the candidates that `strategy` and `layout` allow ("auto": all; a strategy's name without a
/// grid: all grids that fit; "auto" for the layout: the first even one of contiguous, zigzag and balanced,
/// and those before it) and takes the one with the least predicted time, then fewest bytes, then the first.
/// Deterministic.
/// @param weigh   does not change what is taken. With Weigh::best, the programs of a few ranks tell how long
/// each plan takes at least; the most promising are weighed first, and those that are certain to take longer
/// than the best of them are given up
/// @param reduce  Reduce::native weighs only plans whose states meet in MPI's own reduction; those are not
/// weighed otherwise
/// @throws InvalidProblem if none is possible, with the reasons
[[nodiscard]] Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy,
                                 std::string_view layout, Machine const& machine = {},
                                 Reduce reduce = Reduce::p2p, Weigh weigh = Weigh::best);

}  // namespace plait
