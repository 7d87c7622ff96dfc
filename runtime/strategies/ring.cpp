// Ring (pass-KV): queries stay; key/value blocks travel from rank to next rank, one hop a round.
#include "strategies.hpp"

#include "plan_builder.hpp"

namespace plait {
namespace {

/// A key/value block on its way round the ring.
struct Traveller {
  BlockId kv;
  int hops;  ///< rounds until the last rank that needs it has it
  SlotId slot = at_rest;
};

/// How far the block must travel: the distance of the last rank after its home that needs it.
int hops_needed(PlanBuilder const& plan, int home, BlockId kv) {
  for (int distance = plan.ranks() - 1; distance > 0; --distance) {
    if (plan.rank_needs((home + distance) % plan.ranks(), kv)) return distance;
  }
  return 0;
}

}  // namespace

Plan ring_plan(Problem const& problem, Layouts const& layouts) {
  PlanBuilder plan(problem, layouts, "ring");
  int const ranks = plan.ranks();
  std::vector<std::vector<Traveller>> from_home(static_cast<std::size_t>(ranks));
  for (int home = 0; home < ranks; ++home) {
    for (BlockId const kv : plan.kv_blocks(home)) {
      from_home[static_cast<std::size_t>(home)].push_back({.kv = kv, .hops = hops_needed(plan, home, kv)});
    }
  }
  for (int round = 0; round < ranks; ++round) {
    for (int home = 0; home < ranks; ++home) {
      int const holder = (home + round) % ranks;
      for (Traveller& traveller : from_home[static_cast<std::size_t>(home)]) {
        if (traveller.hops < round) continue;
        for (BlockId const q : plan.q_blocks(holder)) {
          if (plan.meet(q, traveller.kv)) plan.fold_at_home(holder, q, traveller.kv, traveller.slot);
        }
        plan.release(holder, traveller.slot);
        if (traveller.hops > round) {
          traveller.slot = plan.send(holder, traveller.slot, (holder + 1) % ranks, traveller.kv);
        }
      }
    }
    plan.end_round();
  }
  return std::move(plan).finish();
}

}  // namespace plait
