#include "plait/planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <compare>
#include <limits>
#include <optional>
#include <utility>

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

/// Ranks that tell how long a plan takes at least, whatever it is: both ends of the layout, and the rank
/// whose queries see most, if they see clearly more.
std::vector<int> ranks_to_sample(Mask const& mask, Layout const& q) {
  constexpr double clearly = 1.01;
  std::vector<int> ranks = {0, q.ranks() - 1};
  double most = clearly * std::max(kept_pairs(mask, q, ranks.front()), kept_pairs(mask, q, ranks.back()));
  int busiest = -1;
  for (int rank = 0; rank < q.ranks(); ++rank) {
    if (double const area = kept_pairs(mask, q, rank); area > most) {
      most = area;
      busiest = rank;
    }
  }
  if (busiest >= 0) ranks.push_back(busiest);
  return ranks;
}

/// Neighbours in the middle: they differ in the heads that they have, where heads are spread.
std::vector<int> neighbours_to_sample(int ranks) {
  constexpr int neighbours = 8;
  std::vector<int> sample;
  int const first = ranks / 2 / neighbours * neighbours;
  for (int rank = first; rank < std::min(ranks, first + neighbours); ++rank) sample.push_back(rank);
  return sample;
}

/// Weighs candidates, and keeps the best.
class Scales {
 public:
  Scales(Problem const& problem, Machine const& machine, Weigh which)
      : problem_(problem), machine_(machine), which_(which) {}

  void add(std::vector<std::string> const& strategies, NamedLayouts const& named) {
    std::vector<std::vector<int>> samples;
    if (which_ == Weigh::best) {
      samples = {ranks_to_sample(problem_.mask, named.layouts.q),
                 neighbours_to_sample(named.layouts.q.ranks())};
    }
    for (std::string const& strategy : strategies) {
      candidates_.push_back({.strategy = strategy, .layout = named.name});
      options_.push_back({.layouts = &named.layouts, .samples = samples});
    }
  }

  /// The most promising first: samples tell ever better how long it takes at least, and then it is weighed.
  Choice choose() && {
    if (candidates_.size() == 1) options_.front().samples.clear();
    while (auto const next = most_promising()) {
      if (options_[*next].samples.empty()) {
        weigh(*next);
      } else {
        bound(*next);
      }
    }
    if (!best_) throw InvalidProblem(refusals());
    return {.plan = std::move(*best_),
            .layout = candidates_[best_cost_.index].layout,
            .candidates = std::move(candidates_)};
  }

 private:
  /// Least predicted time, then fewest bytes, then the first.
  struct Cost {
    double seconds = 0.0;
    std::uint64_t bytes = 0;
    std::size_t index = 0;
    friend auto operator<=>(Cost const&, Cost const&) = default;
  };

  /// What a candidate's plan is made of, and the samples of ranks that are yet to tell how long it takes at
  /// least.
  struct Option {
    Layouts const* layouts;
    std::vector<std::vector<int>> samples;
    bool weighed = false;
  };

  /// Of those that may be the best.
  [[nodiscard]] std::optional<std::size_t> most_promising() const {
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      Candidate const& candidate = candidates_[i];
      bool const open = candidate.refused.empty() && !options_[i].weighed;
      if (!open || candidate.least_seconds > most_seconds()) continue;
      if (!found || candidate.least_seconds < candidates_[*found].least_seconds) found = i;
    }
    return found;
  }

  [[nodiscard]] double most_seconds() const {
    return best_ && which_ == Weigh::best ? best_cost_.seconds : std::numeric_limits<double>::infinity();
  }

  void bound(std::size_t index) {
    Candidate& candidate = candidates_[index];
    Option& option = options_[index];
    try {
      // Sums in another order than the simulation's: a little less, so that rounding gives nothing up.
      constexpr double rounding = 1e-9;
      std::vector<int> const& sample = option.samples.front();
      Plan const plan = make_plan(problem_, *option.layouts, candidate.strategy, sample);
      candidate.least_seconds =
          std::max(candidate.least_seconds, (1.0 - rounding) * least_seconds(plan, sample, machine_));
      option.samples.erase(option.samples.begin());
    } catch (InvalidProblem const& error) {
      candidate.refused = error.what();
    }
  }

  void weigh(std::size_t index) {
    Candidate& candidate = candidates_[index];
    options_[index].weighed = true;
    try {
      Plan plan = make_plan(problem_, *options_[index].layouts, candidate.strategy);
      Simulation const simulation = simulate(plan, machine_, Record::nothing, most_seconds());
      candidate.least_seconds = std::max(candidate.least_seconds, simulation.seconds);
      if (simulation.seconds > most_seconds()) return;
      Volume const moved = volume(plan);
      candidate.weight = {.seconds = simulation.seconds,
                          .critical = simulation.critical,
                          .bytes_max = largest(moved.sent),
                          .slots_bytes = largest(moved.slots)};
      Cost const cost{candidate.weight->seconds, candidate.weight->bytes_max, index};
      if (best_ && best_cost_ < cost) return;
      best_ = std::move(plan);
      best_cost_ = cost;
    } catch (InvalidProblem const& error) {
      candidate.refused = error.what();
    }
  }

  [[nodiscard]] std::string refusals() const {
    std::string all;
    for (Candidate const& candidate : candidates_) {
      all += fmt::format("{}{}", all.empty() ? "" : "; ", candidate.refused);
    }
    return all;
  }

  Problem const& problem_;
  Machine const& machine_;
  Weigh which_;
  std::vector<Candidate> candidates_;
  std::vector<Option> options_;  ///< by candidate
  std::optional<Plan> best_;
  Cost best_cost_;
};

}  // namespace

Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
                   Machine const& machine, Reduce reduce, Weigh weigh) {
  validate(problem);
  validate(machine);
  std::vector<std::string> const names = names_to_weigh(
      strategy, problem, {.ranks = ranks, .ranks_per_node = machine.ranks_per_node, .reduce = reduce});
  std::vector<NamedLayouts> const layouts = layouts_to_weigh(layout, problem.mask, ranks);
  Scales scales(problem, machine, weigh);
  for (NamedLayouts const& named : layouts) scales.add(names, named);
  return std::move(scales).choose();
}

}  // namespace plait
