// All-gather (pass-KV): queries stay; each rank gets every key/value block that it needs straight from its
// home, in the shifted order of a pairwise exchange, so that folds start after the first block and slots are
// reused.
#include "strategies.hpp"

#include "plan_builder.hpp"

namespace plait {

Plan allgather_plan(Problem const& problem, Layouts const& layouts) {
  PlanBuilder plan(problem, layouts, "allgather");
  int const ranks = plan.ranks();
  struct Arrived {
    BlockId kv;
    SlotId slot;
  };
  // What each rank folds in the coming round: its own blocks first.
  std::vector<std::vector<Arrived>> arrived(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    for (BlockId const kv : plan.kv_blocks(rank))
      arrived[static_cast<std::size_t>(rank)].push_back({kv, at_rest});
  }
  for (int round = 0; round < ranks; ++round) {
    std::vector<std::vector<Arrived>> arriving(static_cast<std::size_t>(ranks));
    for (int rank = 0; rank < ranks; ++rank) {
      for (Arrived const& here : arrived[static_cast<std::size_t>(rank)]) {
        for (BlockId const q : plan.q_blocks(rank)) {
          if (plan.meet(q, here.kv)) plan.fold_at_home(rank, q, here.kv, here.slot);
        }
        plan.release(rank, here.slot);
      }
      if (round + 1 == ranks) continue;
      int const to = (rank + round + 1) % ranks;
      for (BlockId const kv : plan.kv_blocks(rank)) {
        if (!plan.rank_needs(to, kv)) continue;
        arriving[static_cast<std::size_t>(to)].push_back({kv, plan.send(rank, at_rest, to, kv)});
      }
    }
    arrived = std::move(arriving);
    plan.end_round();
  }
  return std::move(plan).finish();
}

}  // namespace plait
