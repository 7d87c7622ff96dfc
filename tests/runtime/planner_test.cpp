// The planner: what it weighs, what it takes, and what it says of the rest.
#include "plait/planner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "plait/strategy.hpp"
#include "plait/volume.hpp"
#include "random_problem.hpp"

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

/// The planner against what it must find: every plan that there is, written out and simulated to the end.
TEST(Planner, TakesWhatWeighingAllPlansFinds) {
  std::uint64_t const seed = test::seed_or(8);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  test::Random random(seed);
  std::size_t given_up = 0;
  for (int round = 0; round < 120; ++round) {
    Index const n = test::uniform(random, 1, round % 4 == 0 ? 4000 : 80);
    Index const keys = round % 3 == 0 ? test::uniform(random, 1, 80) : n;
    auto const ranks = static_cast<int>(test::uniform(random, 1, 16));
    Shape const shape{.q_tokens = n,
                      .kv_tokens = keys,
                      .q_heads = 8,
                      .kv_heads = round % 2 == 0 ? 4 : 1,
                      .dtype = DType::bf16};
    Problem const problem{.shape = shape, .mask = test::random_mask(random, n, keys), .scale = 1.0};
    Machine const machine = test::random_machine(random, ranks);
    Choice const choice = choose_plan(problem, ranks, "auto", "auto", machine);
    Choice const full = choose_plan(problem, ranks, "auto", "auto", machine, Reduce::p2p, Weigh::all);
    ASSERT_EQ(choice.candidates.size(), full.candidates.size());
    std::tuple best(std::numeric_limits<double>::infinity(), std::uint64_t{0}, std::string(), std::string());
    for (std::size_t i = 0; i < choice.candidates.size(); ++i) {
      Candidate const& candidate = choice.candidates[i];
      ASSERT_EQ(candidate.strategy, full.candidates[i].strategy);
      ASSERT_EQ(candidate.refused, full.candidates[i].refused);
      if (!candidate.refused.empty()) continue;
      Plan const plan =
          make_plan(problem, make_layouts(candidate.layout, problem.mask, ranks), candidate.strategy);
      double const seconds = simulate(plan, machine, Record::nothing).seconds;
      std::uint64_t const bytes = std::ranges::max(volume(plan).sent);
      if (std::pair(seconds, bytes) < std::pair(std::get<0>(best), std::get<1>(best))) {
        best = {seconds, bytes, candidate.strategy, candidate.layout};
      }
      ASSERT_LE(candidate.least_seconds, seconds) << candidate.strategy;
      ASSERT_EQ(candidate.weight.value_or(Weight{seconds, {}, bytes, 0}).seconds, seconds)
          << candidate.strategy;
      ASSERT_EQ(full.candidates[i].weight.value().seconds, seconds) << candidate.strategy;
      ASSERT_EQ(full.candidates[i].weight->bytes_max, bytes) << candidate.strategy;
      given_up += candidate.weight ? 0U : 1U;
    }
    for (Choice const* one : {&choice, &full}) {
      EXPECT_EQ(one->plan.strategy, std::get<2>(best));
      EXPECT_EQ(one->layout, std::get<3>(best));
    }
  }
  EXPECT_GT(given_up, 0U);
}

TEST(Planner, NamesWhatItCannotDo) {
  Problem const problem = full_problem();
  EXPECT_THROW((void)choose_plan(problem, 4, "mesh:9x9", "auto"), InvalidProblem);
  EXPECT_THROW((void)choose_plan(problem, 0, "ring", "auto"), InvalidProblem);
}

}  // namespace
}  // namespace plait
