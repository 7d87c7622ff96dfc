#include "plait/planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
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
/// it, which may move fewer bytes. Where queries are few, all on one rank too: spread over ranks, each rank
/// reads its keys once for each part of them.
std::vector<NamedLayouts> layouts_to_weigh(std::string_view asked, Mask const& mask, int ranks) {
  constexpr double even = 1.01;
  constexpr Index few_queries = 4096;
  if (asked != "auto") return {{std::string(asked), make_layouts(asked, mask, ranks)}};
  std::vector<NamedLayouts> found;
  for (std::string_view const name : {"contiguous", "zigzag", "balanced"}) {
    found.push_back({std::string(name), make_layouts(name, mask, ranks)});
    bool const fewer_than_ranks = mask.q_tokens() < ranks;  // no layout is even, and none evener
    if (fewer_than_ranks || imbalance(mask, found.back().layouts.q) <= even) break;
  }
  if (mask.q_tokens() <= few_queries && mask.q_tokens() < mask.kv_tokens()) {
    Layouts root = make_layouts("root", mask, ranks);
    if (root != found.front().layouts) found.push_back({"root", std::move(root)});
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
  constexpr double steps_of_others = 12.5e3;
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

/// Thrown while a plan is written that is already certain to take too long.
struct TooSlow {
  double seconds;  ///< it takes no less
};

/// Weighs candidates, and keeps the best.
class Scales {
 public:
  Scales(Problem const& problem, Machine const& machine, Weigh which)
      : problem_(problem), machine_(machine), which_(which), tie_(tie_rule(machine)) {}

  void add(std::vector<std::string> const& strategies, NamedLayouts const& named) {
    for (std::string const& strategy : strategies) {
      candidates_.push_back({.strategy = strategy, .layout = named.name});
      options_.push_back({.layouts = &named.layouts, .steps = 0.0});
    }
  }

  /// The most promising first: samples tell ever better how long it takes at least, and then it is weighed,
  /// or its time is estimated.
  Choice choose() && {
    bool const rivals = which_ != Weigh::all && candidates_.size() > 1;
    for (Option& option : options_) option.known = rivals ? Known::nothing : Known::few;
    if (rivals) list_first();
    while (auto const next = next_to_know()) {
      Known const known = options_[*next].known;
      if (known == Known::nothing) {
        bound(*next, std::vector{samples_of(*next).busiest}, seconds_to_follow(*next));
      } else if (known == Known::busiest && !too_large(*next)) {
        bound(*next, samples_of(*next).few, seconds_to_follow(*next));
      } else if (rivals && too_large(*next)) {
        estimate(*next);
      } else {
        weigh(*next);
      }
    }
    if (near_.empty()) throw InvalidProblem(refusals());
    std::optional<Traded> traded = this->traded();
    Taken& taken = near_[taken_at()];
    std::string const layout = candidates_[taken.cost.index].layout;
    return {.plan = std::move(taken.plan),
            .layout = layout,
            .candidates = std::move(candidates_),
            .predicted_seconds = taken.cost.seconds,
            .simulation = std::move(taken.simulation),
            .sampled = std::move(taken.sampled),
            .traded = std::move(traded)};
  }

 private:
  /// What the rule for ties weighs.
  struct Cost {
    std::uint64_t slots = 0;  ///< bytes, of the rank that needs most
    std::uint64_t bytes = 0;  ///< sent by the rank that sends most
    double seconds = 0.0;
    std::size_t index = 0;
  };

  /// Whose programs have told of a plan.
  enum class Known : std::uint8_t { nothing, busiest, few };

  /// What a candidate's plan is made of, and how far it is known.
  struct Option {
    Layouts const* layouts;
    Known known = Known::nothing;
    double steps = 0.0;       ///< of the whole plan, about
    std::uint64_t slots = 0;  ///< Cost's, of ranks that are known
    std::uint64_t bytes = 0;
    bool done = false;  ///< weighed, or its time estimated
  };

  /// A plan that may be taken.
  struct Taken {
    Cost cost;
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

  /// Those that move the fewest bytes.
  void list_first() {
    constexpr std::size_t few = 8;
    if (candidates_.size() <= few) return;
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      std::string_view const name = candidates_[i].strategy;
      std::size_t const colon = std::min(name.find(':'), name.size() - 1);
      order.emplace_back(
          strategy_of(name).bytes(problem_, options_[i].layouts->q.ranks(), name.substr(colon + 1)), i);
    }
    std::ranges::partial_sort(order, order.begin() + few);
    for (std::size_t i = 0; i < few; ++i) first_.push_back(order[i].second);
  }

  /// Of those that may be taken, the first few, then the one that may be fastest.
  [[nodiscard]] std::optional<std::size_t> next_to_know() const {
    for (std::size_t const index : first_) {
      if (open(index) && candidates_[index].least_seconds == 0) return index;
    }
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (!open(i)) continue;
      if (!found || candidates_[i].least_seconds < candidates_[*found].least_seconds) found = i;
    }
    return found;
  }

  /// Beyond what bounds are not followed for now: what is taken will hardly take longer than the best of the
  /// first few at least, and a tenth. Without that, all that is certain.
  [[nodiscard]] double seconds_to_follow(std::size_t index) const {
    constexpr double margin = 1.1;
    double const infinity = std::numeric_limits<double>::infinity();
    if (!near_.empty()) return most_seconds();
    double least = infinity;
    for (std::size_t const first : first_) {
      Candidate const& candidate = candidates_[first];
      if (!candidate.refused.empty()) continue;
      if (candidate.least_seconds == 0) return infinity;  // these come first
      least = std::min(least, candidate.least_seconds);
    }
    return candidates_[index].least_seconds > margin * least ? infinity : margin * least;
  }

  /// Whether more is to be known of a candidate, as it may be taken.
  [[nodiscard]] bool open(std::size_t index) const {
    Candidate const& candidate = candidates_[index];
    Option const& option = options_[index];
    if (!candidate.refused.empty() || option.done) return false;
    if (near_.empty() || which_ == Weigh::all) return true;
    if (candidate.least_seconds > most_seconds()) return false;
    if (option.known == Known::nothing) return true;
    // It costs more than what would be taken, which stays near the fastest even if that is this one.
    Cost const least{option.slots, option.bytes, candidate.least_seconds, index};
    Cost const& taken = near_[taken_at()].cost;
    return dearness(least) < dearness(taken) || taken.seconds > (1.0 + tie_.share) * candidate.least_seconds;
  }

  [[nodiscard]] double most_seconds() const {
    return near_.empty() || which_ == Weigh::all ? std::numeric_limits<double>::infinity() : near_seconds();
  }

  /// How long a plan may take that is taken.
  [[nodiscard]] double near_seconds() const { return (1.0 + tie_.share) * near_[fastest_at()].cost.seconds; }

  [[nodiscard]] std::size_t fastest_at() const {
    auto const fastest =
        std::ranges::min_element(near_, {}, [](Taken const& one) { return one.cost.seconds; });
    return static_cast<std::size_t>(fastest - near_.begin());
  }

  [[nodiscard]] std::size_t taken_at() const {
    auto const least =
        std::ranges::min_element(near_, {}, [this](Taken const& one) { return dearness(one.cost); });
    return static_cast<std::size_t>(least - near_.begin());
  }

  /// Of plans that are nearly as fast the one with the least is taken.
  [[nodiscard]] std::tuple<std::uint64_t, std::uint64_t, double, std::size_t> dearness(
      Cost const& cost) const {
    return tie_.bytes_first ? std::tuple(cost.bytes, std::uint64_t{0}, cost.seconds, cost.index)
                            : std::tuple(cost.slots, cost.bytes, cost.seconds, cost.index);
  }

  /// Keeps what may be taken in the end: of plans near the fastest, those that cost less than all faster
  /// ones.
  void keep(Taken taken) {
    Cost const cost = taken.cost;
    auto const spares = [this](Cost const& one, Cost const& other) {
      return one.seconds <= other.seconds && dearness(one) < dearness(other);
    };
    if (std::ranges::any_of(near_, [&](Taken const& other) { return spares(other.cost, cost); })) return;
    std::erase_if(near_, [&](Taken const& other) { return spares(cost, other.cost); });
    near_.push_back(std::move(taken));
    std::erase_if(near_, [&, most = near_seconds()](Taken const& one) { return one.cost.seconds > most; });
  }

  [[nodiscard]] std::optional<Traded> traded() const {
    Cost const& fastest = near_[fastest_at()].cost;
    Cost const& taken = near_[taken_at()].cost;
    if (taken.index == fastest.index) return {};
    Candidate const& candidate = candidates_[fastest.index];
    return Traded{.strategy = candidate.strategy,
                  .layout = candidate.layout,
                  .seconds = fastest.seconds,
                  .slots_bytes = fastest.slots,
                  .bytes_max = fastest.bytes,
                  .taken_slots_bytes = taken.slots,
                  .taken_bytes_max = taken.bytes};
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
  /// @returns nothing if it is refused, or given up as it is certain to take more than `most_seconds`
  std::optional<Told> bound(std::size_t index, std::vector<int> const& sample, double most_seconds) {
    Candidate& candidate = candidates_[index];
    Option& option = options_[index];
    // Sums in another order than the simulation's: a little less, so that rounding gives nothing up.
    constexpr double rounding = 1e-9;
    LeastSoFar so_far(sample, machine_);
    auto const stop_if_slow = [&](double least) {
      if ((1.0 - rounding) * least > most_seconds) throw TooSlow{(1.0 - rounding) * least};
    };
    try {
      Watch watch;
      if (!std::isinf(most_seconds)) {
        watch.foretold = [&](Plan const& plan) {
          stop_if_slow(sampled_seconds(plan, sample, machine_).least);
        };
        watch.after_round = [&](Plan const& plan) { stop_if_slow(so_far.seconds(plan)); };
      }
      Plan plan = make_plan(problem_, *option.layouts, candidate.strategy, sample, watch);
      auto const [least, lockstep] = sampled_seconds(plan, sample, machine_);
      candidate.least_seconds = std::max(candidate.least_seconds, (1.0 - rounding) * least);
      double of_sample = 0.0;
      for (int const rank : sample) {
        of_sample += steps(plan.programs[static_cast<std::size_t>(rank)]);
      }
      Volume const moved = volume(plan);
      option.slots = std::max(option.slots, largest(moved.slots));
      option.bytes = std::max(option.bytes, largest(moved.sent));
      option.steps = of_sample * plan.ranks() / static_cast<double>(sample.size());
      option.known = option.known == Known::nothing ? Known::busiest : Known::few;
      return Told{std::move(plan), lockstep};
    } catch (TooSlow const& slow) {
      candidate.least_seconds = std::max(candidate.least_seconds, slow.seconds);
    } catch (InvalidProblem const& error) {
      candidate.refused = error.what();
    }
    return {};
  }

  void estimate(std::size_t index) {
    Option& option = options_[index];
    option.done = true;
    std::vector<int> sample = with_others(samples_of(index).few, option.layouts->q.ranks(), option.steps);
    // Waiting for others counts nothing in the one, and too much in the other.
    auto const seconds_by = [&](Told const& told) {
      return std::sqrt(candidates_[index].least_seconds * told.lockstep);
    };
    if (!near_.empty()) {  // some of them may be enough to give it up: more ranks only add to an estimate
      std::vector<int> some = {samples_of(index).busiest};
      for (std::size_t i = 0; i < sample.size(); i += 4) some.push_back(sample[i]);
      std::optional<Told> const told = bound(index, ascending(std::move(some)), most_seconds());
      if (!told || seconds_by(*told) > most_seconds()) return;
    }
    std::optional<Told> told = bound(index, sample, most_seconds());
    if (!told) return;
    double const seconds = seconds_by(*told);
    candidates_[index].estimated_seconds = seconds;
    keep({{option.slots, option.bytes, seconds, index},
          std::move(told->plan),
          std::nullopt,
          std::move(sample)});
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
      Cost const cost{candidate.weight->slots_bytes, candidate.weight->bytes_max, simulation.seconds, index};
      keep({cost, std::move(plan), std::move(simulation), {}});
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
  TieRule tie_;
  std::vector<Candidate> candidates_;
  std::vector<Option> options_;                ///< by candidate
  std::map<Layouts const*, Samples> samples_;  ///< once asked for
  double steps_weighed_ = 0.0;
  std::vector<std::size_t> first_;  ///< those that are bounded first
  std::vector<Taken> near_;         ///< what may be taken in the end
};

}  // namespace

TieRule tie_rule(Machine const& machine) {
  bool const cores_move_bytes = machine.host_seconds_per_byte > 0 || machine.link_share_computing < 1;
  return cores_move_bytes ? TieRule{.share = 0.03, .bytes_first = true} : TieRule{};
}

Choice select_plan(Problem const& problem, int ranks, std::string_view strategy, std::string_view layout,
                   Machine const& machine, Reduce reduce, Weigh weigh) {
  validate(problem);
  validate(machine);
  std::vector<NamedLayouts> const layouts = layouts_to_weigh(layout, problem.mask, ranks);
  std::vector<std::string> const names = names_to_weigh(
      strategy, problem, {.ranks = ranks, .ranks_per_node = machine.ranks_per_node, .reduce = reduce});
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
