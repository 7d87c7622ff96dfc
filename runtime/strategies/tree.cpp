// Tree: few queries, sharded keys. Each query block goes to the ranks whose keys it sees, is folded there at
// once, and the states are merged on their way back: in ⌈log2⌉ steps ("tree:log"), or all at the home, by
// messages ("tree:direct") or by MPI's reduce-scatter ("tree:native").
#include <fmt/format.h>

#include <algorithm>

#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// One query block's ranks, its home first, the others by their distance after it.
struct Visit {
  BlockId q;
  std::vector<int> ranks;
  std::vector<SlotId> slots;   ///< of the queries, by rank
  std::vector<SlotId> states;  ///< by rank
  [[nodiscard]] std::size_t size() const { return ranks.size(); }
};

/// How states come home.
enum class Return : std::uint8_t { log, direct, native };

std::vector<Visit> visits(PlanBuilder const& plan, Return by) {
  std::vector<Visit> found;
  for (int home = 0; home < plan.ranks(); ++home) {
    for (BlockId const q : plan.q_blocks(home)) {
      Visit visit{.q = q, .ranks = {home}, .slots = {}, .states = {}};
      for (int distance = 1; distance < plan.ranks(); ++distance) {
        int const rank = (home + distance) % plan.ranks();
        // Only there does no third rank matter.
        if (by == Return::direct && !plan.writes(home) && !plan.writes(rank)) continue;
        if (plan.rank_serves(rank, q)) visit.ranks.push_back(rank);
      }
      visit.slots.assign(visit.size(), at_rest);
      visit.states.assign(visit.size(), at_rest);
      found.push_back(std::move(visit));
    }
  }
  return found;
}

class Tree {
 public:
  Tree(PlanBuilder& plan, Return by) : plan_(plan), return_(by), visits_(visits(plan, by)) {
    for (Visit const& visit : visits_) most_ = std::max(most_, visit.size());
  }

  void write() {
    std::size_t folded = 0;
    std::vector<std::size_t> reaches;  // how many ranks of a visit had the queries before each round
    for (std::size_t reach = 1; reach < most_; reach = next(reach)) {
      for (Visit& visit : visits_) spread(visit, reach);
      for (Visit& visit : visits_) fold(visit, folded, reach);
      folded = reach;
      reaches.push_back(reach);
      plan_.end_round();
    }
    for (Visit& visit : visits_) fold(visit, folded, most_);
    plan_.end_round();
    if (return_ == Return::native) return reduce();
    for (auto reach = reaches.rbegin(); reach != reaches.rend(); ++reach) {
      std::vector<Returned> returned;
      for (Visit& visit : visits_) collect(visit, *reach, returned);
      plan_.end_round();
      for (Returned const& back : returned) merge(back);
      plan_.end_round();
    }
  }

 private:
  struct Returned {
    Visit const& visit;
    std::size_t to;
    SlotId slot;
  };

  /// How many ranks of a visit have the queries after another round.
  [[nodiscard]] std::size_t next(std::size_t reach) const {
    return return_ == Return::log ? 2 * reach : most_;
  }
  [[nodiscard]] std::size_t parent(std::size_t index, std::size_t reach) const {
    return return_ == Return::log ? index - reach : 0;
  }

  /// The ranks that have the queries send them on.
  void spread(Visit& visit, std::size_t reach) {
    for (std::size_t to = reach; to < std::min(next(reach), visit.size()); ++to) {
      std::size_t const from = parent(to, reach);
      if (!plan_.writes(visit.ranks[from]) && !plan_.writes(visit.ranks[to])) continue;
      visit.slots[to] = plan_.send(visit.ranks[from], visit.slots[from], visit.ranks[to], visit.q);
    }
  }

  /// The ranks [begin, end) of a visit fold their keys.
  void fold(Visit& visit, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < std::min(end, visit.size()); ++i) {
      int const rank = visit.ranks[i];
      if (!plan_.writes(rank)) continue;
      if (i > 0) visit.states[i] = plan_.acquire(rank, plan_.state_of(visit.q));
      for (BlockId const kv : plan_.kv_blocks(rank)) {
        if (!plan_.meet(visit.q, kv)) continue;
        if (i == 0) {
          plan_.fold_at_home(rank, visit.q, kv, at_rest);
        } else {
          plan_.fold(rank, visit.q, visit.slots[i], kv, at_rest, visit.states[i]);
        }
      }
    }
  }

  /// The ranks that got the queries in the round of `reach` send their states to those that they got them
  /// from.
  void collect(Visit& visit, std::size_t reach, std::vector<Returned>& returned) {
    for (std::size_t from = reach; from < std::min(next(reach), visit.size()); ++from) {
      std::size_t const to = parent(from, reach);
      if (!plan_.writes(visit.ranks[from]) && !plan_.writes(visit.ranks[to])) continue;
      SlotId const slot =
          plan_.send(visit.ranks[from], visit.states[from], visit.ranks[to], plan_.state_of(visit.q));
      plan_.release(visit.ranks[from], visit.states[from]);
      plan_.release(visit.ranks[from], visit.slots[from]);
      returned.push_back({visit, to, slot});
    }
  }

  void merge(Returned const& back) {
    int const rank = back.visit.ranks[back.to];
    if (back.to == 0) {
      plan_.merge_at_home(rank, back.visit.q, back.slot);
    } else {
      plan_.merge(rank, back.visit.q, back.slot, back.visit.states[back.to]);
    }
    plan_.release(rank, back.slot);
  }

  /// All states of queries that went anywhere meet at home, in one collective.
  void reduce() {
    for (Visit const& visit : visits_) {
      if (visit.size() == 1) continue;
      std::vector<SlotId> parts(static_cast<std::size_t>(plan_.ranks()), at_rest);
      for (std::size_t i = 1; i < visit.size(); ++i) {
        parts[static_cast<std::size_t>(visit.ranks[i])] = visit.states[i];
      }
      plan_.reduce_at_home(visit.q, parts);
    }
    plan_.end_round();
  }

  PlanBuilder& plan_;
  Return return_;
  std::vector<Visit> visits_;
  std::size_t most_ = 1;  ///< ranks of a visit
};

}  // namespace

Plan tree_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
               std::span<int const> only) {
  if (arguments.empty()) arguments = "log";
  if (arguments != "log" && arguments != "direct" && arguments != "native") {
    throw InvalidProblem(
        fmt::format("strategy 'tree:{}': must be tree:log, tree:direct or tree:native", arguments));
  }
  Return const by = arguments == "log"      ? Return::log
                    : arguments == "direct" ? Return::direct
                                            : Return::native;
  PlanBuilder plan(problem, layouts, fmt::format("tree:{}", arguments), only);
  Tree(plan, by).write();
  return std::move(plan).finish_at_home();
}

std::vector<std::string> tree_variants(Problem const&, Group const& group) {
  if (group.reduce == Reduce::native) return {"tree:native"};
  return {"tree:log", "tree:direct"};
}

}  // namespace plait
