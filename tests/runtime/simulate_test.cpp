#include "plait/simulate.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "plait/planner.hpp"
#include "plait/strategy.hpp"

namespace plait {
namespace {

constexpr Index tokens = 4000;
constexpr int ranks = 4;

Problem full_problem() {
  Shape const shape{.q_tokens = tokens,
                    .kv_tokens = tokens,
                    .q_heads = 1,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .value_dim = 32,
                    .dtype = DType::f32};
  return {.shape = shape, .mask = Mask::full(tokens, tokens), .scale = 1.0};
}

/// One level of equal links, and memory that costs nothing.
Machine flat_machine(double flops_per_second, double bytes_per_second, double latency_seconds) {
  Link const link{.latency_seconds = latency_seconds, .bytes_per_second = bytes_per_second};
  return {
      .flops_per_second = flops_per_second, .memory_bytes_per_second = 1e15, .node = link, .network = link};
}

/// A ring of P equal blocks: P folds one after the other, each hiding a transfer that is shorter.
TEST(Simulate, RingWithFastLinkTakesTheFoldsTime) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "ring");
  Machine const machine = flat_machine(1e9, 1e12, 0.0);
  double const folds = 1000.0 * 4000.0 * 2 * 64 / 1e9;
  Simulation const result = simulate(plan, machine, Record::nothing);
  EXPECT_NEAR(result.seconds, folds, 1e-6);
  for (double const exposed : result.exposed_comm_seconds) EXPECT_NEAR(exposed, 0.0, 1e-9);
  EXPECT_TRUE(result.timeline.empty());
}

/// With a slow link the ring takes P−1 transfers and the last fold.
TEST(Simulate, RingWithSlowLinkTakesTheTransfersTime) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "ring");
  Machine const machine = flat_machine(1e15, 1e6, 0.5);
  // 1,000 tokens a rank travel in 3 pieces: 3 transfers of each, one after the other, for each of 3 hops.
  double const transfers = 3 * 1000.0 * 64 * 4 / 1e6 + 9 * 0.5;
  EXPECT_NEAR(simulate(plan, machine, Record::nothing).seconds, transfers, 1e-3);
}

TEST(Simulate, TimelineHasEveryStepAndNoOverlapOfComputation) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "passq");
  Simulation const result = simulate(plan, {}, Record::timeline);
  std::size_t folds = 0;
  std::size_t sends = 0;
  std::vector<double> busy_until(ranks, 0.0);
  for (Event const& event : result.timeline) {
    EXPECT_LE(event.start_seconds, event.end_seconds);
    EXPECT_LE(event.end_seconds, result.seconds + 1e-12);
    folds += event.kind == Event::Kind::fold ? 1 : 0;
    sends += event.kind == Event::Kind::send ? 1 : 0;
    bool const computes = event.kind != Event::Kind::send && event.kind != Event::Kind::receive;
    if (!computes) continue;
    EXPECT_GE(event.start_seconds, busy_until[static_cast<std::size_t>(event.rank)] - 1e-12);
    busy_until[static_cast<std::size_t>(event.rank)] = event.end_seconds;
  }
  std::size_t planned_folds = 0;
  std::size_t planned_sends = 0;
  for (Program const& program : plan.programs) {
    planned_folds += program.folds.size();
    planned_sends += program.sends.size();
  }
  EXPECT_EQ(folds, planned_folds);
  EXPECT_EQ(sends, planned_sends);
}

/// Few queries over many keys: moving the queries is cheaper than moving the keys, and the choice must see
/// it.
TEST(Planner, ChoosesPassQForFewQueriesAndPassKvForMany) {
  Shape shape{.q_tokens = 8,
              .kv_tokens = 1 << 16,
              .q_heads = 8,
              .kv_heads = 8,
              .head_dim = 64,
              .value_dim = 64,
              .dtype = DType::bf16};
  Problem few{.shape = shape, .mask = Mask::causal(8, 1 << 16), .scale = 1.0};
  Choice const choice = choose_plan(few, 4, "auto", "auto");
  for (Program const& program : choice.plan.programs) {
    for (Transfer const& send : program.sends) {
      EXPECT_NE(choice.plan.block(send.block).tensor, Tensor::kv) << choice.plan.strategy;
    }
  }
  for (Strategy const& strategy : strategies()) {
    EXPECT_TRUE(std::ranges::any_of(choice.candidates, [&](Candidate const& candidate) {
      return &strategy_of(candidate.strategy) == &strategy;
    })) << strategy.name;
  }
  shape.q_tokens = shape.kv_tokens;
  Problem const many{.shape = shape, .mask = Mask::full(1 << 16, 1 << 16), .scale = 1.0};
  EXPECT_NE(choose_plan(many, 4, "auto", "auto", flat_machine(50e9, 1e6, 20e-6)).plan.strategy, "passq");
}

TEST(Planner, NamesWhatItCannotDo) {
  Problem const problem = full_problem();
  EXPECT_THROW((void)choose_plan(problem, 4, "mesh:9x9", "auto"), InvalidProblem);
  EXPECT_THROW((void)choose_plan(problem, 0, "ring", "auto"), InvalidProblem);
}

}  // namespace
}  // namespace plait
