#include "plait/planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <compare>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "plait/lists.hpp"
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

/// Ranks that tell how long a plan takes.
struct Samples {
  int busiest;           ///< the end of the layout whose queries see more, or a rank whose see clearly more
  std::vector<int> few;  ///< both ends, and neighbours: they differ in their heads, where heads are spread
};

Samples ranks_to_sample(Mask const& mask, Layout const& q) {
  constexpr double clearly = 1.01;
  constexpr int neighbours = 8;
  int const last = q.ranks() - 1;
  double const first_area = kept_pairs(mask, q, 0);
  double const last_area = kept_pairs(mask, q, last);
  int busiest = last_area >= first_area ? last : 0;
  double most = clearly * std::max(first_area, last_area);
  for (int rank = 0; rank <= last; ++rank) {
    if (double const area = kept_pairs(mask, q, rank); area > most) {
      most = area;
      busiest = rank;
    }
  }
  std::vector<int> few = {0, last, busiest};
  int const middle = q.ranks() / 2 / neighbours * neighbours;
  for (int rank = middle; rank < std::min(q.ranks(), middle + neighbours); ++rank) few.push_back(rank);
  return {busiest, ascending(std::move(few))};
}

/// As many others all over as have about so many steps, by the steps of the whole plan.
std::vector<int> with_others(std::vector<int> sample, int ranks, double steps_of_plan) {
  constexpr double steps_of_others = 25e3;
  constexpr double fewest = 8;
  constexpr Index shifts = 7;
  double const wanted = std::max(fewest, steps_of_others * ranks / std::max(1.0, steps_of_plan));
  auto const others = static_cast<Index>(std::min<double>(ranks, wanted));
  for (Index i = 1; i < others; ++i) {
    // At uneven distances, so that they are not all the same in a node, or in a grid.
    sample.push_back(static_cast<int>(i * ranks / others + i % shifts % (ranks / others)));
  }
  return ascending(std::move(sample));
}

double steps(Program const& program) {
  return static_cast<double>(program.sends.size() + program.receives.size() + program.folds.size() +
                             program.merges.size() + program.finishes.size());
}

/// Weighs candidates, and keeps the best.
class Scales {
 public:
  Scales(Problem const& problem, Machine const& machine, Weigh which)
      : problem_(problem), machine_(machine), which_(which) {}

  void add(std::vector<std::string> const& strategies, NamedLayouts const& named) {
    for (std::string const& strategy : strategies) {
      candidates_.push_back({.strategy = strategy, .layout = named.name});
      options_.push_back({.layouts = &named.layouts});
    }
  }

  /// The most promising first: samples tell ever better how long it takes at least, and then it is weighed,
  /// or its time is estimated.
  Choice choose() && {
    bool const rivals = which_ != Weigh::all && candidates_.size() > 1;
    for (Option& option : options_) option.known = rivals ? Known::nothing : Known::few;
    while (auto const next = most_promising()) {
      Known const known = options_[*next].known;
      if (known == Known::nothing) {
        bound(*next, std::vector{samples_of(*next).busiest});
      } else if (known == Known::busiest && (best_ || !rivals || !too_large(*next))) {
        bound(*next, samples_of(*next).few);
      } else if (rivals && too_large(*next)) {
        estimate(*next);
      } else {
        weigh(*next);
      }
    }
    if (!best_) throw InvalidProblem(refusals());
    std::string const layout = candidates_[best_->index].layout;
    return {.plan = std::move(taken_->plan),
            .layout = layout,
            .candidates = std::move(candidates_),
            .predicted_seconds = best_->seconds,
            .simulation = std::move(taken_->simulation),
            .sampled = std::move(taken_->sampled)};
  }

 private:
  /// Least predicted time, then fewest bytes, then the first.
  struct Cost {
    double seconds = 0.0;
    std::uint64_t bytes = 0;
    std::size_t index = 0;
    friend auto operator<=>(Cost const&, Cost const&) = default;
  };

  /// Whose programs have told of a plan.
  enum class Known : std::uint8_t { nothing, busiest, few };

  /// What a candidate's plan is made of, and how far it is known.
  struct Option {
    Layouts const* layouts;
    Known known = Known::nothing;
    double steps = 0.0;  ///< of the whole plan, about
    bool done = false;   ///< weighed, or its time estimated
  };

  /// The best so far.
  struct Taken {
    Plan plan;
    std::optional<Simulation> simulation;  ///< if it was weighed
    std::vector<int> sampled;              ///< ranks whose programs are written; none: all
  };

  /// What the programs of a few ranks tell.
  struct Told {
    Plan plan;
    double lockstep;  ///< seconds: @see SampledSeconds
  };

  Samples const& samples_of(std::size_t index) {
    Layouts const* const layouts = options_[index].layouts;
    auto [at, is_new] = samples_.try_emplace(layouts);
    if (is_new) at->second = ranks_to_sample(problem_.mask, layouts->q);
    return at->second;
  }

  /// Of those that may be the best.
  [[nodiscard]] std::optional<std::size_t> most_promising() const {
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      Candidate const& candidate = candidates_[i];
      bool const open = candidate.refused.empty() && !options_[i].done;
      if (!open || candidate.least_seconds > most_seconds()) continue;
      if (!found || candidate.least_seconds < candidates_[*found].least_seconds) found = i;
    }
    return found;
  }

  [[nodiscard]] double most_seconds() const {
    return best_ && which_ != Weigh::all ? best_->seconds : std::numeric_limits<double>::infinity();
  }

  /// For what may be spent: a share of the run, if that is more.
  [[nodiscard]] bool too_large(std::size_t index) const {
    constexpr double share_of_run = 0.01;
    constexpr double steps_a_second = 10e6;
    double const in_share = share_of_run * candidates_[index].least_seconds * steps_a_second;
    double const all = steps_weighed_ + options_[index].steps;
    return which_ == Weigh::sampled || all > std::max(steps_to_weigh, in_share);
  }

  /// What the programs of the ranks tell: how long it takes at least, and how large it is.
  /// @returns nothing if it is refused
  std::optional<Told> bound(std::size_t index, std::vector<int> const& sample) {
    Candidate& candidate = candidates_[index];
    Option& option = options_[index];
    try {
      // Sums in another order than the simulation's: a little less, so that rounding gives nothing up.
      constexpr double rounding = 1e-9;
      Plan plan = make_plan(problem_, *option.layouts, candidate.strategy, sample);
      auto const [least, lockstep] = sampled_seconds(plan, sample, machine_);
      candidate.least_seconds = std::max(candidate.least_seconds, (1.0 - rounding) * least);
      double of_sample = 0.0;
      for (int const rank : sample) of_sample += steps(plan.programs[static_cast<std::size_t>(rank)]);
      option.steps = of_sample * plan.ranks() / static_cast<double>(sample.size());
      option.known = option.known == Known::nothing ? Known::busiest : Known::few;
      return Told{std::move(plan), lockstep};
    } catch (InvalidProblem const& error) {
      candidate.refused = error.what();
      return {};
    }
  }

  void estimate(std::size_t index) {
    Option& option = options_[index];
    option.done = true;
    std::vector<int> sample = with_others(samples_of(index).few, option.layouts->q.ranks(), option.steps);
    std::optional<Told> told = bound(index, sample);
    if (!told) return;
    // Waiting for others counts nothing in the one, and too much in the other.
    double const seconds = std::sqrt(candidates_[index].least_seconds * told->lockstep);
    candidates_[index].estimated_seconds = seconds;
    Cost const cost{seconds, largest(volume(told->plan).sent), index};
    if (best_ && *best_ < cost) return;
    best_ = cost;
    taken_ = {std::move(told->plan), std::nullopt, std::move(sample)};
  }

  void weigh(std::size_t index) {
    Candidate& candidate = candidates_[index];
    options_[index].done = true;
    steps_weighed_ += options_[index].steps;
    try {
      Plan plan = make_plan(problem_, *options_[index].layouts, candidate.strategy);
      Simulation simulation = simulate(plan, machine_, Record::nothing, most_seconds());
      candidate.least_seconds = std::max(candidate.least_seconds, simulation.seconds);
      if (simulation.seconds > most_seconds()) return;
      Volume const moved = volume(plan);
      candidate.weight = {.seconds = simulation.seconds,
                          .critical = simulation.critical,
                          .bytes_max = largest(moved.sent),
                          .slots_bytes = largest(moved.slots)};
      Cost const cost{candidate.weight->seconds, candidate.weight->bytes_max, index};
      if (best_ && *best_ < cost) return;
      best_ = cost;
      taken_ = {std::move(plan), std::move(simulation), {}};
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
  std::vector<Option> options_;                ///< by candidate
  std::map<Layouts const*, Samples> samples_;  ///< once asked for
  double steps_weighed_ = 0.0;
  std::optional<Cost> best_;
  std::optional<Taken> taken_;
};

}  // namespace

Choice select_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
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

Choice choose_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
                   Machine const& machine, Reduce reduce, Weigh weigh) {
  Choice choice = select_plan(problem, ranks, strategy, layout, machine, reduce, weigh);
  if (choice.sampled.empty()) return choice;
  choice.sampled.clear();
  choice.plan = make_plan(problem, Layouts(choice.plan.layouts), std::string(choice.plan.strategy));
  return choice;
}

}  // namespace plait
