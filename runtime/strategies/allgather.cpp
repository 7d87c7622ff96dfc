// All-gather (pass-KV): queries stay; each rank gets every key/value block that it needs straight from its
// home, in the shifted order of a pairwise exchange, so that folds start after the first block and slots are
// reused.
#include <utility>

#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// A key/value block at a rank that will fold it.
struct Arrived {
  int rank;
  BlockId kv;
  SlotId slot;
};

void fold_and_release(PlanBuilder& plan, std::vector<Arrived> const& arrived) {
  for (Arrived const& here : arrived) {
    for (BlockId const q : plan.q_blocks(here.rank)) {
      if (plan.meet(q, here.kv)) plan.fold_at_home(here.rank, q, here.kv, here.slot);
    }
    plan.release(here.rank, here.slot);
  }
}

}  // namespace

/// For each piece of the blocks, P−1 rounds: in the d-th every rank sends to the rank d after it. What
/// arrives is folded in the next round; a rank's own piece is folded in the first.
Plan allgather_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                    std::span<int const> only) {
  require_no_arguments("allgather", arguments);
  Index const pieces = pieces_to_travel(layouts.kv);
  PlanBuilder plan(problem, layouts, "allgather", only, pieces);
  int const ranks = plan.ranks();
  std::vector<Arrived> arrived;
  for (Index piece = 0; piece < pieces; ++piece) {
    for (int const rank : plan.written()) {
      for (BlockId const kv : plan.kv_blocks(rank, piece)) arrived.push_back({rank, kv, at_rest});
    }
    for (int distance = 1; distance < ranks; ++distance) {
      fold_and_release(plan, std::exchange(arrived, {}));
      for (int const from : plan.written_or_before(distance)) {
        int const to = (from + distance) % ranks;
        for (BlockId const kv : plan.kv_blocks(from, piece)) {
          if (plan.rank_needs(to, kv)) arrived.push_back({to, kv, plan.send(from, at_rest, to, kv)});
        }
      }
      plan.end_round();
    }
  }
  fold_and_release(plan, arrived);
  plan.end_round();
  return std::move(plan).finish_at_home();
}

}  // namespace plait
