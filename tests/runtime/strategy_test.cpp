#include "plait/strategy.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "plait/verify.hpp"
#include "plait/volume.hpp"
#include "random_problem.hpp"

namespace plait {
namespace {

using test::Random;
using test::uniform;

Problem problem_of(Shape const& shape, Mask mask) {
  return {.shape = shape, .mask = std::move(mask), .scale = default_scale(shape)};
}

Shape llama_like(Index tokens) {
  return {.batch = 1,
          .q_tokens = tokens,
          .kv_tokens = tokens,
          .q_heads = 8,
          .kv_heads = 2,
          .head_dim = 64,
          .value_dim = 64,
          .dtype = DType::bf16};
}

/// DESIGN §4, full mask, N divisible by P: bytes sent = received per rank.
TEST(Strategy, BytesMatchTheFormulas) {
  for (int ranks = 1; ranks <= 16; ++ranks) {
    Index const tokens = 840 * ranks;
    Shape const shape = llama_like(tokens);
    Problem const problem = problem_of(shape, Mask::full(tokens, tokens));
    Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
    double const share = (ranks - 1.0) / ranks;
    double const n = static_cast<double>(tokens);
    double const pass_kv = share * 2 * n * 2 * 64 * 2;              // (P−1)/P · 2·N·Hkv·D·e
    double const pass_q = share * n * 8 * (64 * 2 + (64 + 2) * 4);  // (P−1)/P · T·Hq·(D·e + (D+2)·s)
    for (auto const& [name, formula] :
         {std::pair{"ring", pass_kv}, {"allgather", pass_kv}, {"passq", pass_q}}) {
      Volume const moved = volume(make_plan(problem, layouts, name));
      for (std::size_t rank = 0; rank < moved.sent.size(); ++rank) {
        EXPECT_EQ(static_cast<double>(moved.sent[rank]), formula)
            << name << " rank " << rank << " of " << ranks;
        EXPECT_EQ(static_cast<double>(moved.received[rank]), formula)
            << name << " rank " << rank << " of " << ranks;
      }
    }
  }
}

/// Under a causal mask and a contiguous layout, rank r's keys are needed by ranks r..P−1 only.
TEST(Strategy, BlocksGoOnlyWhereTheMaskNeedsThem) {
  int const ranks = 5;
  Index const tokens = 500;
  Problem const problem = problem_of(llama_like(tokens), Mask::causal(tokens, tokens));
  Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
  std::uint64_t const block = 100 * 2 * 2 * 64 * 2;
  Volume const ring = volume(make_plan(problem, layouts, "ring"));
  Volume const allgather = volume(make_plan(problem, layouts, "allgather"));
  for (std::size_t rank = 0; rank < 5; ++rank) {
    // Around the ring, rank r passes on the blocks of ranks 0..r; the last rank passes on none.
    EXPECT_EQ(ring.sent[rank], rank == 4 ? 0 : (rank + 1) * block);
    EXPECT_EQ(ring.received[rank], rank * block);
    // Straight from home, rank r sends its own block to the 4 − r ranks after it.
    EXPECT_EQ(allgather.sent[rank], (4 - rank) * block);
    EXPECT_EQ(allgather.received[rank], rank * block);
  }
  Volume const passq = volume(make_plan(problem, layouts, "passq"));
  std::uint64_t const visit = 100 * 8 * 64 * 2;
  std::uint64_t const state = 100 * 8 * (64 + 2) * 4;
  for (std::size_t rank = 0; rank < 5; ++rank) {
    // Queries visit the r ranks before; states go back to the 4 − r ranks after.
    EXPECT_EQ(passq.sent[rank], rank * visit + (4 - rank) * state);
  }
}

TEST(Strategy, DocumentsThatStayAtHomeMoveNothing) {
  Mask const mask = Mask::documents(std::vector<Index>{64, 64, 64, 64});
  Problem const problem = problem_of(llama_like(256), mask);
  Layouts const layouts = make_layouts("contiguous", mask, 4);
  for (Strategy const& strategy : strategies()) {
    Plan const plan = make_plan(problem, layouts, strategy.name);
    Volume const moved = volume(plan);
    EXPECT_EQ(std::accumulate(moved.sent.begin(), moved.sent.end(), std::uint64_t{0}), 0u) << strategy.name;
    EXPECT_EQ(plan.rounds(), 1u) << strategy.name;
  }
}

/// Slots are reused: memory per rank does not grow with the number of ranks, beyond the state at home.
TEST(Strategy, SlotsDoNotGrowWithTheRanks) {
  auto const slots_of = [](std::string_view name, int ranks) {
    Index const tokens = 100 * ranks;
    Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
    return volume(make_plan(problem, make_layouts("contiguous", problem.mask, ranks), name)).slots.front();
  };
  for (Strategy const& strategy : strategies()) {
    EXPECT_EQ(slots_of(strategy.name, 8), slots_of(strategy.name, 16)) << strategy.name;
  }
  std::uint64_t const state = 100 * 8 * (64 + 2) * 4;
  std::uint64_t const kv = 100 * 2 * (64 + 64) * 2;
  EXPECT_EQ(slots_of("ring", 8), state + 2 * kv);
  EXPECT_EQ(slots_of("allgather", 8), state + 2 * kv);
}

/// With few ranks the blocks travel in pieces, so that folds start early; slots then hold pieces.
TEST(Strategy, FewRanksCutTheBlocksThatTravel) {
  Index const tokens = 2048;
  Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
  Layouts const layouts = make_layouts("contiguous", problem.mask, 2);
  std::uint64_t const state = 1024 * 8 * (64 + 2) * 4;
  std::uint64_t const kv = 1024 * 2 * (64 + 64) * 2;
  for (std::string_view const name : {"ring", "allgather"}) {
    Plan const plan = make_plan(problem, layouts, name);
    EXPECT_EQ(plan.rounds(), 9u) << name;  // 8 pieces of 128 tokens, and the last fold
    EXPECT_EQ(volume(plan).slots.front(), state + 2 * kv / 8) << name;
    EXPECT_EQ(volume(plan).sent.front(), kv) << name;
  }
}

TEST(Strategy, PlansAreDeterministic) {
  Mask const mask = Mask::causal(300, 300);
  Problem const problem = problem_of(llama_like(300), mask);
  Layouts const layouts = make_layouts("balanced", mask, 7);
  for (Strategy const& strategy : strategies()) {
    EXPECT_EQ(make_plan(problem, layouts, strategy.name).programs,
              make_plan(problem, layouts, strategy.name).programs);
  }
}

TEST(Strategy, UnknownNamesAndForeignLayoutsAreRefused) {
  Problem const problem = problem_of(llama_like(64), Mask::full(64, 64));
  try {
    (void)make_plan(problem, make_layouts("contiguous", problem.mask, 2), "rong");
    FAIL();
  } catch (InvalidProblem const& error) {
    EXPECT_NE(std::string(error.what()).find("strategy 'rong': must be one of ring, allgather, passq"),
              std::string::npos)
        << error.what();
  }
  Mask const other = Mask::full(65, 65);
  EXPECT_THROW((void)make_plan(problem, make_layouts("contiguous", other, 2), "ring"), InvalidProblem);
}

/// Every plan of any mask, layout and rank count keeps the five laws.
TEST(Strategy, RandomPlansAreVerified) {
  std::uint64_t const seed = test::seed_or(4);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 200; ++round) {
    Index const longest =
        round % 4 == 0 ? 6000 : 60;  // long enough for blocks to be cut, or short enough for none
    Index const q_tokens = uniform(random, 0, longest);
    Index const kv_tokens = round % 2 == 0 ? q_tokens : uniform(random, 0, longest);
    int const ranks = static_cast<int>(uniform(random, 1, 9));
    Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
    Shape shape = llama_like(q_tokens);
    shape.kv_tokens = kv_tokens;
    Problem const problem = problem_of(shape, mask);
    Layouts const layouts = test::random_layouts(random, mask, ranks);
    for (Strategy const& strategy : strategies()) {
      auto const violations = verify(make_plan(problem, layouts, strategy.name));
      ASSERT_TRUE(violations.empty())
          << strategy.name << ", " << ranks << " ranks, " << q_tokens << " × " << kv_tokens
          << " tokens: " << name(violations.front().law) << ": " << violations.front().message;
    }
  }
}

}  // namespace
}  // namespace plait
