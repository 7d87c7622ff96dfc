// A strategy of one's own: a function that writes a plan. Proved, simulated and run like those that come with
// Plait.
#include <gtest/gtest.h>

#include "attention_case.hpp"
#include "plait/plan_builder.hpp"
#include "plait/simulate.hpp"
#include "plait/verify.hpp"

namespace plait {
namespace {

/// Neighbours in pairs: in round r, ranks that differ in bit r swap all key/value blocks that they have (a
/// hypercube); the number of ranks must be a power of two.
Plan hypercube_plan(Problem const& problem, Layouts const& layouts) {
  struct Held {
    BlockId kv;
    SlotId slot;
  };
  PlanBuilder plan(problem, layouts, "hypercube");
  std::vector<std::vector<Held>> held(static_cast<std::size_t>(plan.ranks()));
  std::vector<std::vector<Held>> fresh = held;
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    for (BlockId const kv : plan.kv_blocks(rank))
      fresh[static_cast<std::size_t>(rank)].push_back({kv, at_rest});
  }
  for (int bit = 1; bit <= plan.ranks(); bit *= 2) {
    auto const before = std::exchange(fresh, std::vector<std::vector<Held>>(held.size()));
    for (int rank = 0; rank < plan.ranks(); ++rank) {
      auto& mine = held[static_cast<std::size_t>(rank)];
      for (Held const& arrived : before[static_cast<std::size_t>(rank)]) {
        for (BlockId const q : plan.q_blocks(rank)) {
          if (plan.meet(q, arrived.kv)) plan.fold_at_home(rank, q, arrived.kv, arrived.slot);
        }
        mine.push_back(arrived);
      }
      int const peer = rank ^ bit;
      for (Held const& block : mine) {
        if (peer >= plan.ranks()) break;
        fresh[static_cast<std::size_t>(peer)].push_back(
            {block.kv, plan.send(rank, block.slot, peer, block.kv)});
      }
    }
    plan.end_round();
  }
  return std::move(plan).finish_at_home();
}

TEST(ToyStrategy, IsProvedSimulatedAndRight) {
  World world(MPI_COMM_WORLD);
  Index const tokens = 200;
  Shape const shape{.q_tokens = tokens, .kv_tokens = tokens, .q_heads = 4, .kv_heads = 2};
  Problem const problem{.shape = shape, .mask = Mask::causal(tokens, tokens), .scale = default_scale(shape)};
  Layouts const layouts = make_layouts("zigzag", problem.mask, world.size());
  Plan const plan = hypercube_plan(problem, layouts);
  EXPECT_TRUE(verify(plan).empty());
  EXPECT_GT(simulate(plan, Machine{}, Record::nothing).seconds, 0.0);
  test::AttentionCase run(world, problem, layouts, 11);
  Attention attention(world, plan, test::test_options(world));
  run.run(attention);
  test::expect_within(run.judge([](Index q, Index k) { return k <= q; }));
}

}  // namespace
}  // namespace plait
