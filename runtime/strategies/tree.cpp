// Tree: few queries, sharded keys. Each query block goes to the ranks whose keys it sees, is folded there at
// once, and the states are merged on their way back: in ⌈log2⌉ steps ("tree:log"), or all at the home, by
// messages ("tree:direct") or by MPI's reduce-scatter ("tree:native").
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "home_folds.hpp"
#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// How states come home.
enum class Return : std::uint8_t { log, direct, native };

/// The home, and who gets the queries in a transfer that is not written.
constexpr std::size_t nobody = ~std::size_t{0};

/// A rank that a query block visits.
struct Member {
  std::size_t index;  ///< 0 for the home, then by the distance after it
  std::size_t from;   ///< the member that it gets the queries from, or nobody
  int rank;
  SlotId slot = at_rest;  ///< of the queries
  SlotId state = at_rest;
};

/// One query block's ranks: its home, and those whose keys it sees.
struct Visit {
  BlockId q;
  std::size_t size;             ///< ranks, its home included
  std::vector<Member> members;  ///< those whose programs are written, and whom they exchange with, by index
};

/// The rank of a visit that the one of `index` gets the queries from. On the way of a tree, as many ranks as
/// had them before get them in each round.
std::size_t parent(std::size_t index, Return by) {
  return by == Return::log ? index - std::bit_floor(index) : 0;
}

class VisitWriter {
 public:
  VisitWriter(PlanBuilder const& plan, Return by) : plan_(plan), by_(by) {}

  [[nodiscard]] Visit write(BlockId q) {
    int const home = plan_.block(q).home;
    RankSet const ranks = plan_.ranks_that_serve(q);
    int const before = ranks.count({0, home});
    int const after = ranks.count({home + 1, plan_.ranks()});
    Visit visit{.q = q, .size = static_cast<std::size_t>(1 + before + after), .members = {}};
    list_indices(ranks, home, visit.size);
    visit.members.reserve(indices_.size());
    for (std::size_t const index : indices_) {
      auto const n = static_cast<int>(index) - 1;
      int const rank = index == 0  ? home
                       : n < after ? ranks.at(ranks.count({0, home + 1}) + n)
                                   : ranks.at(n - after);
      std::size_t const from = index == 0 ? nobody : place(visit, parent(index, by_));
      visit.members.push_back({.index = index, .from = from, .rank = rank});
    }
    return visit;
  }

 private:
  /// Of the members, ascending.
  void list_indices(RankSet const& ranks, int home, std::size_t size) {
    auto& found = indices_;
    if (plan_.writes_all() || (by_ != Return::log && plan_.writes(home))) {
      found.resize(size);
      std::iota(found.begin(), found.end(), std::size_t{0});
      return;
    }
    found.assign(1, 0);
    for (int const rank : plan_.written()) {
      if (rank != home && !ranks.contains(rank)) continue;
      int const distance = rank > home ? ranks.count({home + 1, rank + 1})
                                       : ranks.count({home + 1, plan_.ranks()}) + ranks.count({0, rank + 1});
      std::size_t const index = rank == home ? 0 : static_cast<std::size_t>(distance);
      if (by_ == Return::log) {
        // It gets the queries from there, and sends them on at ever larger distances.
        if (index > 0) found.push_back(parent(index, by_));
        found.push_back(index);
        for (std::size_t step = index == 0 ? 1 : 2 * std::bit_floor(index); index + step < size; step *= 2) {
          found.push_back(index + step);
        }
      } else {
        found.push_back(index);
      }
    }
    found = ascending(std::move(found));
  }

  /// Where the member of that index is, if there.
  static std::size_t place(Visit const& visit, std::size_t index) {
    auto const at = std::ranges::lower_bound(visit.members, index, {}, &Member::index);
    bool const there = at != visit.members.end() && at->index == index;
    return there ? static_cast<std::size_t>(at - visit.members.begin()) : nobody;
  }

  PlanBuilder const& plan_;
  Return by_;
  std::vector<std::size_t> indices_;  ///< of the visit at hand
};

class Tree {
 public:
  Tree(PlanBuilder& plan, Return by) : plan_(plan), return_(by) {
    VisitWriter writer(plan, by);
    for (int home = 0; home < plan.ranks(); ++home) {
      for (BlockId const q : plan.q_blocks(home)) {
        Visit visit = writer.write(q);
        most_ = std::max(most_, visit.size);
        // Every rank lists every reduction; of messages, only those of its own are written.
        bool const matters = visit.members.size() > 1 || plan.writes(home) || by == Return::native;
        if (matters) visits_.push_back(std::move(visit));
      }
    }
  }

  void write() {
    std::vector<HomeFold> const last = start_at_home();
    std::size_t folded = 1;
    std::vector<std::size_t> reaches;  // how many ranks of a visit had the queries before each round
    for (std::size_t reach = 1; reach < most_; reach = next(reach)) {
      for (Visit& visit : visits_) spread(visit, reach);
      for (Visit& visit : visits_) fold(visit, folded, reach);
      folded = reach;
      reaches.push_back(reach);
      plan_.end_round();
    }
    for (Visit& visit : visits_) fold(visit, folded, most_);
    fold_all(plan_, once_spread_);
    plan_.end_round();
    if (return_ == Return::native) return reduce();
    fold_all(plan_, last);  // beside the first returns
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
    BlockId q;
    Member const& to;
    SlotId slot;
  };

  /// How many ranks of a visit have the queries after another round.
  [[nodiscard]] std::size_t next(std::size_t reach) const {
    return return_ == Return::log ? 2 * reach : most_;
  }

  /// Calls use(member) for those of the indices [begin, end).
  template <class Use>
  static void for_each(Visit& visit, std::size_t begin, std::size_t end, Use&& use) {
    auto at = std::ranges::lower_bound(visit.members, begin, {}, &Member::index);
    for (; at != visit.members.end() && at->index < end; ++at) use(*at);
  }

  /// Folds at home what is folded in the first round. @returns what is left
  std::vector<HomeFold> start_at_home() {
    std::vector<HomeFold> left;
    for (int const rank : plan_.written()) {
      if (return_ == Return::native) {  // a round of reductions has no folds
        fold_all(plan_, meetings(plan_, rank));
        continue;
      }
      HomeFolds const folds = home_folds(plan_, rank);
      // A round's sends wait for the folds of those before it. And those of a rank that has all queries come
      // in the round of the others': nothing of it is wanted before.
      bool const wait = folds.last.empty() && (return_ == Return::log || folds.alone);
      if (wait) {
        once_spread_.insert(once_spread_.end(), folds.first.begin(), folds.first.end());
      } else {
        fold_all(plan_, folds.first);
      }
      left.insert(left.end(), folds.last.begin(), folds.last.end());
    }
    return left;
  }

  /// The ranks that have the queries send them on.
  void spread(Visit& visit, std::size_t reach) {
    for_each(visit, reach, next(reach), [&](Member& to) {
      if (to.from == nobody) return;
      Member const& from = visit.members[to.from];
      to.slot = plan_.send(from.rank, from.slot, to.rank, visit.q);
    });
  }

  /// The ranks [begin, end) of a visit, without its home, fold their keys.
  void fold(Visit& visit, std::size_t begin, std::size_t end) {
    for_each(visit, begin, end, [&](Member& member) {
      if (!plan_.writes(member.rank)) return;
      member.state = plan_.acquire(member.rank, plan_.state_of(visit.q));
      for (BlockId const kv : plan_.kv_blocks(member.rank)) {
        if (plan_.meet(visit.q, kv)) {
          plan_.fold(member.rank, visit.q, member.slot, kv, at_rest, member.state);
        }
      }
    });
  }

  /// The ranks that got the queries in the round of `reach` send their states to those that they got them
  /// from.
  void collect(Visit& visit, std::size_t reach, std::vector<Returned>& returned) {
    for_each(visit, reach, next(reach), [&](Member const& from) {
      if (from.from == nobody) return;
      Member const& to = visit.members[from.from];
      SlotId const slot = plan_.send(from.rank, from.state, to.rank, plan_.state_of(visit.q));
      plan_.release(from.rank, from.state);
      plan_.release(from.rank, from.slot);
      returned.push_back({visit.q, to, slot});
    });
  }

  void merge(Returned const& back) {
    if (back.to.index == 0) {
      plan_.merge_at_home(back.to.rank, back.q, back.slot);
    } else {
      plan_.merge(back.to.rank, back.q, back.slot, back.to.state);
    }
    plan_.release(back.to.rank, back.slot);
  }

  /// All states of queries that went anywhere meet at home, in one collective.
  void reduce() {
    for (Visit const& visit : visits_) {
      if (visit.size == 1) continue;
      std::vector<SlotId> parts(static_cast<std::size_t>(plan_.ranks()), at_rest);
      for (Member const& member : visit.members) {
        if (member.index > 0) parts[static_cast<std::size_t>(member.rank)] = member.state;
      }
      plan_.reduce_at_home(visit.q, parts);
    }
    plan_.end_round();
  }

  PlanBuilder& plan_;
  Return return_;
  std::vector<Visit> visits_;
  std::size_t most_ = 1;               ///< ranks of a visit
  std::vector<HomeFold> once_spread_;  ///< what is folded at home when all queries have left
};

/// What comes to, and goes from, the ranks that are written, if all states meet at home.
void foretell(PlanBuilder& plan) {
  for (int home = 0; home < plan.ranks(); ++home) {
    for (BlockId const q : plan.q_blocks(home)) {
      auto const exchange = [&](int rank) {
        if (rank == home) return;
        BlockId const state = plan.state_of(q);
        plan.send({home, at_rest, q}, {rank, at_rest, q}, q);
        plan.send({rank, at_rest, state}, {home, at_rest, state}, state);
      };
      if (plan.writes(home)) {
        RankSet const ranks = plan.ranks_that_serve(q);
        for (int i = 0; i < ranks.count({0, plan.ranks()}); ++i) exchange(ranks.at(i));
        continue;
      }
      for (int const rank : plan.written()) {
        if (plan.rank_serves(rank, q)) exchange(rank);
      }
    }
  }
  plan.foretell(plan.blocks());
}

}  // namespace

Plan tree_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
               Extent const& extent) {
  if (arguments.empty()) arguments = "log";
  if (arguments != "log" && arguments != "direct" && arguments != "native") {
    throw InvalidProblem(
        fmt::format("strategy 'tree:{}': must be tree:log, tree:direct or tree:native", arguments));
  }
  Return const by = arguments == "log"      ? Return::log
                    : arguments == "direct" ? Return::direct
                                            : Return::native;
  PlanBuilder plan(problem, layouts, fmt::format("tree:{}", arguments), extent);
  if (by == Return::direct && plan.foretells()) foretell(plan);
  Tree(plan, by).write();
  return std::move(plan).finish_at_home();
}

std::vector<std::string> tree_variants(Problem const&, Group const& group) {
  if (group.reduce == Reduce::native) return {"tree:native"};
  return {"tree:log", "tree:direct"};
}

}  // namespace plait
