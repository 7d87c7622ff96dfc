// The planner: what it weighs, what it takes, and what it says of the rest.
#include "plait/planner.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "plait/strategy.hpp"

namespace plait {
namespace {

Problem full_problem() {
  Shape const shape{.q_tokens = 4000,
                    .kv_tokens = 4000,
                    .q_heads = 1,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .value_dim = 32,
                    .dtype = DType::f32};
  return {.shape = shape, .mask = Mask::full(4000, 4000), .scale = 1.0};
}

/// A megabyte a second, and memory that costs nothing.
Machine slow_links() {
  Link const link{.latency_seconds = 20e-6, .bytes_per_second = 1e6};
  return {.flops_per_second = 50e9,
          .memory_bytes_per_second = 1e15,
          .key_bytes_per_second = 1e15,
          .node = link,
          .network = link};
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
  EXPECT_NE(choose_plan(many, 4, "auto", "auto", slow_links()).plan.strategy, "passq");
}

/// --reduce native: plans whose states meet in MPI's own reduction, and no others; and none of them
/// otherwise.
TEST(Planner, WeighsNativeReductionsWhenAsked) {
  Problem const problem = full_problem();
  auto const reduces = [](Plan const& plan) { return !plan.programs.front().reductions.empty(); };
  for (std::string_view const name : {"auto", "tree", "tree:native"}) {
    Choice const choice = choose_plan(problem, 4, name, "contiguous", {}, Reduce::native);
    EXPECT_TRUE(reduces(choice.plan)) << name;
    EXPECT_EQ(choice.candidates.size(), 1U) << name;
  }
  for (std::string_view const name : {"ring", "mesh:2x2", "tree:direct"}) {
    try {
      (void)choose_plan(problem, 4, name, "auto", {}, Reduce::native);
      ADD_FAILURE() << name << " was accepted";
    } catch (InvalidProblem const& error) {
      EXPECT_NE(std::string(error.what()).find("has no native reduction"), std::string::npos) << error.what();
    }
  }
  for (Candidate const& candidate : choose_plan(problem, 4, "auto", "auto").candidates) {
    EXPECT_NE(candidate.strategy, "tree:native");
  }
  EXPECT_THROW((void)choose_plan(problem, 4, "rong", "auto", {}, Reduce::native), InvalidProblem);
}

TEST(Planner, NamesWhatItCannotDo) {
  Problem const problem = full_problem();
  EXPECT_THROW((void)choose_plan(problem, 4, "mesh:9x9", "auto"), InvalidProblem);
  EXPECT_THROW((void)choose_plan(problem, 0, "ring", "auto"), InvalidProblem);
}

}  // namespace
}  // namespace plait
