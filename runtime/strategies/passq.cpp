// Pass-Q: keys and values stay; query blocks visit the ranks whose keys they see, and a partial state (m, l,
// O) comes back from each visit to be merged at home. One head is split over ranks by its keys.
#include "home_folds.hpp"
#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// A query block away from home, or its partial state on the way back.
struct Visit {
  BlockId q;
  int host;
  SlotId slot;
};

/// Query blocks go to the ranks so far after their homes that serve them.
void travel(PlanBuilder& plan, int distance, std::vector<Visit>& arrived) {
  for (int const rank : plan.written_or_before(distance)) {
    int const host = (rank + distance) % plan.ranks();
    for (BlockId const q : plan.q_blocks(rank)) {
      if (plan.rank_serves(host, q)) arrived.push_back({q, host, plan.send(rank, at_rest, host, q)});
    }
  }
}

}  // namespace

/// Stages of a visit, one round each: travel, fold at the host, return, merge at home. The visits to the rank
/// at distance d travel in round d − 1, so all four stages of successive distances run at once. What is
/// folded at home is so while the first queries leave, and while the last states come back.
Plan passq_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                Extent const& extent) {
  require_no_arguments("passq", arguments);
  PlanBuilder plan(problem, layouts, "passq", extent);
  int const ranks = plan.ranks();
  std::vector<Visit> arrived;
  std::vector<Visit> folded;
  std::vector<Visit> returned;
  std::vector<HomeFolds> at_home;  // of the written ranks
  for (int const rank : plan.written()) {
    fold_all(plan, at_home.emplace_back(home_folds(plan, rank)).first);
  }
  for (int round = 0; round < ranks + 2; ++round) {
    for (HomeFolds const& rank : at_home) {
      if (round == rank.farthest + 1) fold_all(plan, rank.last);
    }
    for (Visit const& visit : returned) {
      int const home = plan.block(visit.q).home;
      plan.merge_at_home(home, visit.q, visit.slot);
      plan.release(home, visit.slot);
    }
    returned.clear();
    for (Visit const& visit : folded) {
      int const home = plan.block(visit.q).home;
      returned.push_back(
          {visit.q, visit.host, plan.send(visit.host, visit.slot, home, plan.state_of(visit.q))});
      plan.release(visit.host, visit.slot);
    }
    folded.clear();
    for (Visit const& visit : arrived) {
      SlotId const state = plan.acquire(visit.host, plan.state_of(visit.q));
      for (BlockId const kv : plan.kv_blocks(visit.host)) {
        if (plan.meet(visit.q, kv)) plan.fold(visit.host, visit.q, visit.slot, kv, at_rest, state);
      }
      plan.release(visit.host, visit.slot);
      folded.push_back({visit.q, visit.host, state});
    }
    arrived.clear();
    if (round + 1 < ranks) travel(plan, round + 1, arrived);
    plan.end_round();
  }
  return std::move(plan).finish_at_home();
}

std::vector<std::string> passq_variants(Problem const&, Group const&) {
  return {"passq"};
}

}  // namespace plait
