// Chooses the strategy: writes every plan that is valid, weighs each, takes the best.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "plait/plan.hpp"
#include "plait/simulate.hpp"
#include "plait/strategy.hpp"

namespace plait {

/// One plan that was weighed.
struct Candidate {
  std::string strategy;
  std::string layout;
  double predicted_seconds = 0.0;
  Spent critical = {};            ///< what the predicted time is made of
  std::uint64_t bytes_max = 0;    ///< sent by the rank that sends most
  std::uint64_t slots_bytes = 0;  ///< of the rank that needs most
  std::string refused;            ///< why it cannot be; empty if it can
};

struct Choice {
  Plan plan;
  std::string layout;
  std::vector<Candidate> candidates;  ///< all that were weighed, in a fixed order
};

/// Weighs the candidates that `strategy` and `layout` allow ("auto": all; a strategy's name without a grid:
/// all grids that fit; "auto" for the layout: the first even one of contiguous, zigzag and balanced, and
/// those before it) and takes the one with the least predicted time, then fewest bytes. Deterministic.
/// @param reduce  Reduce::native weighs only plans whose states meet in MPI's own reduction; those are not
/// weighed otherwise
/// @throws InvalidProblem if none is possible, with the reasons
[[nodiscard]] Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy,
                                 std::string_view layout, Machine const& machine = {},
                                 Reduce reduce = Reduce::p2p);

}  // namespace plait
