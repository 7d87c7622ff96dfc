#include <gtest/gtest.h>

#include <array>

#include "plait/simulate.hpp"
#include "plait/strategy.hpp"
#include "random_problem.hpp"
#include "simulate_case.hpp"

namespace plait {
namespace {

/// A program on its own is no slower than simulated among the others', whatever few ranks' are written.
TEST(SampledSeconds, IsNeverMoreThanThePlanTakes) {
  std::uint64_t const seed = test::seed_or(7);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  test::Random random(seed);
  for (int round = 0; round < 300; ++round) {
    Index const n = test::uniform(random, 0, round % 4 == 0 ? 3000 : 60);
    auto const count = static_cast<int>(test::uniform(random, 1, 12));
    Shape const shape{.q_tokens = n, .kv_tokens = n, .q_heads = 8, .kv_heads = 4, .dtype = DType::bf16};
    Problem const problem{.shape = shape, .mask = test::random_mask(random, n, n), .scale = 1.0};
    Layouts const layouts = test::random_layouts(random, problem.mask, count);
    Machine const machine = test::random_machine(random, count);
    std::array const few = {static_cast<int>(test::uniform(random, 0, count - 1)),
                            static_cast<int>(test::uniform(random, 0, count - 1))};
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      double const all = simulate(make_plan(problem, layouts, strategy), machine, Record::nothing).seconds;
      auto const [least, lockstep] =
          sampled_seconds(make_plan(problem, layouts, strategy, few), few, machine);
      ASSERT_LE(least, all * (1 + 1e-9)) << strategy << " on " << count << " ranks";
      ASSERT_LE(least, lockstep * (1 + 1e-9)) << strategy << " on " << count << " ranks";
    }
  }
}

/// What more ranks tell is no less: so a few of them are enough to give up an estimate that is too high.
TEST(SampledSeconds, OnlyGrowWithMoreRanks) {
  test::Random random(test::seed_or(11));
  constexpr int count = 16;
  for (int round = 0; round < 100; ++round) {
    Index const n = test::uniform(random, 0, 600);
    Shape const shape{.q_tokens = n, .kv_tokens = n, .q_heads = 8, .kv_heads = 4, .dtype = DType::bf16};
    Problem const problem{.shape = shape, .mask = test::random_mask(random, n, n), .scale = 1.0};
    Layouts const layouts = test::random_layouts(random, problem.mask, count);
    Machine const machine = test::random_machine(random, count);
    std::array const few = {3, 8};
    std::array const more = {0, 3, 8, 9, 15};
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      auto const some = sampled_seconds(make_plan(problem, layouts, strategy, few), few, machine);
      auto const all = sampled_seconds(make_plan(problem, layouts, strategy, more), more, machine);
      ASSERT_LE(some.least, all.least * (1 + 1e-9)) << strategy;
      ASSERT_LE(some.lockstep, all.lockstep * (1 + 1e-9)) << strategy;
    }
  }
}

/// A ring of equal ranks that never wait for each other takes as long as one rank's program.
TEST(SampledSeconds, IsTheTimeOfAProgramThatNeverWaits) {
  Problem const problem = test::full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, test::ranks), "ring");
  for (double const bytes_per_second : {1e6, 1e12}) {
    Machine const machine = test::flat_machine(1e9, bytes_per_second, 1e-6);
    double const all = simulate(plan, machine, Record::nothing).seconds;
    EXPECT_NEAR(sampled_seconds(plan, std::array{2}, machine).least, all, 1e-9 * all);
    // Equal ranks: none waits for another in lockstep either.
    EXPECT_NEAR(sampled_seconds(plan, std::array{0, 2, 3}, machine).lockstep, all, 1e-9 * all);
  }
}

}  // namespace
}  // namespace plait
