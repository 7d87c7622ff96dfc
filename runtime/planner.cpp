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

struct NamedLayouts {
  std::string name;
  Layouts layouts;
};

/// The layouts worth weighing: the first of contiguous, zigzag and balanced that is even, and those before
/// it, which may move fewer bytes.
std::vector<NamedLayouts> layouts_to_weigh(std::string_view asked, Mask const& mask, int ranks) {
  constexpr double even = 1.01;
  if (asked != "auto") return {{std::string(asked), make_layouts(asked, mask, ranks)}};
  std::vector<NamedLayouts> found;
  for (std::string_view const name : {"contiguous", "zigzag", "balanced"}) {
    found.push_back({std::string(name), make_layouts(name, mask, ranks)});
    if (imbalance(mask, found.back().layouts.q) <= even) break;
  }
  return found;
}

/// The variants of the strategies that `asked` allows.
std::vector<std::string> names_to_weigh(std::string_view asked, Problem const& problem, Group const& group) {
  bool const exact = asked != "auto" && asked.find(':') != std::string_view::npos;
  if (exact && group.reduce == Reduce::p2p) return {std::string(asked)};
  std::vector<std::string> names;
  for (Strategy const& strategy : strategies()) {
    if (asked != "auto" && &strategy != &strategy_of(asked)) continue;  // throws: unknown
    if (group.reduce == Reduce::native && !strategy.reduces_natively) continue;
    for (std::string& name : strategy.variants(problem, group)) {
      if (!exact || name == asked) names.push_back(std::move(name));
    }
  }
  if (!names.empty()) return names;
  throw InvalidProblem(
      fmt::format("strategy '{}' has no native reduction: its states do not all meet at home in one round; "
                  "those of tree:native do",
                  asked));
}

/// Least predicted time, then fewest bytes.
using Cost = std::tuple<double, std::uint64_t>;

}  // namespace

Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
                   Machine const& machine, Reduce reduce) {
  validate(problem);
  std::vector<std::string> const names = names_to_weigh(
      strategy, problem, {.ranks = ranks, .ranks_per_node = machine.ranks_per_node, .reduce = reduce});
  std::optional<Choice> best;
  Cost best_cost;
  std::vector<Candidate> candidates;
  std::string refusals;
  for (NamedLayouts const& named : layouts_to_weigh(layout, problem.mask, ranks)) {
    for (std::string const& name : names) {
      Candidate candidate{.strategy = name, .layout = named.name, .refused = {}};
      try {
        Plan plan = make_plan(problem, named.layouts, name);
        Volume const moved = volume(plan);
        Simulation const simulation = simulate(plan, machine, Record::nothing);
        candidate.predicted_seconds = simulation.seconds;
        candidate.critical = simulation.critical;
        candidate.bytes_max = largest(moved.sent);
        candidate.slots_bytes = largest(moved.slots);
        Cost const cost(candidate.predicted_seconds, candidate.bytes_max);
        if (!best || cost < best_cost) {
          best = {.plan = std::move(plan), .layout = named.name, .candidates = {}};
          best_cost = cost;
        }
      } catch (InvalidProblem const& error) {
        candidate.refused = error.what();
        refusals += fmt::format("{}{}", refusals.empty() ? "" : "; ", error.what());
      }
      candidates.push_back(std::move(candidate));
    }
  }
  if (!best) throw InvalidProblem(refusals);
  best->candidates = std::move(candidates);
  return std::move(*best);
}

}  // namespace plait
