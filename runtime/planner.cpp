#include "plait/planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "plait/strategy.hpp"
#include "plait/volume.hpp"

namespace plait {
namespace {

std::uint64_t largest(std::vector<std::uint64_t> const& values) {
  return values.empty() ? 0 : *std::ranges::max_element(values);
}

/// The name of the layout that make_layouts took.
std::string layout_name(std::string_view asked, Layouts const& layouts, Mask const& mask, int ranks) {
  if (asked != "auto") return std::string(asked);
  for (std::string_view const name : {"contiguous", "zigzag"}) {
    if (make_layouts(name, mask, ranks) == layouts) return std::string(name);
  }
  return "balanced";
}

}  // namespace

Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
                   Machine const& machine) {
  validate(problem);
  Layouts const layouts = make_layouts(layout, problem.mask, ranks);
  std::string const layout_taken = layout_name(layout, layouts, problem.mask, ranks);
  std::vector<std::string> names;
  if (strategy == "auto") {
    for (Strategy const& known : strategies()) names.emplace_back(known.name);
  } else {
    names.emplace_back(strategy);
  }
  std::optional<Plan> best;
  std::tuple<double, std::uint64_t> best_cost;
  std::vector<Candidate> candidates;
  std::string refusals;
  for (std::string const& name : names) {
    Candidate candidate{.strategy = name, .layout = layout_taken, .refused = {}};
    try {
      Plan plan = make_plan(problem, layouts, name);
      Volume const moved = volume(plan);
      candidate.predicted_seconds = simulate(plan, machine, Record::nothing).seconds;
      candidate.bytes_max = largest(moved.sent);
      candidate.slots_bytes = largest(moved.slots);
      std::tuple const cost(candidate.predicted_seconds, candidate.bytes_max);
      if (!best || cost < best_cost) {
        best = std::move(plan);
        best_cost = cost;
      }
    } catch (InvalidProblem const& error) {
      candidate.refused = error.what();
      refusals += fmt::format("{}{}", refusals.empty() ? "" : "; ", error.what());
    }
    candidates.push_back(std::move(candidate));
  }
  if (!best) throw InvalidProblem(refusals);
  return {.plan = std::move(*best), .layout = layout_taken, .candidates = std::move(candidates)};
}

}  // namespace plait
