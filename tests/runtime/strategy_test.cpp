#include "plait/strategy.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "plait/verify.hpp"
#include "plait/volume.hpp"
#include "random_problem.hpp"
#include "strategy_case.hpp"

namespace plait {
namespace {

using test::llama_like;
using test::problem_of;
using test::Random;
using test::uniform;

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
    for (auto const& [name, formula] : {std::pair{"ring", pass_kv},
                                        {"allgather", pass_kv},
                                        {"allgather:1", pass_kv},
                                        {"allgather:3", pass_kv},
                                        {"passq", pass_q}}) {
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

/// DESIGN §4: N/P · [(a−1)·Hq·(D·e + (D+2)·s) + (b−1)·2·Hkv·D·e] for the mesh; for Ulysses
/// (P−1)/P · N/P · [(2Hq + 2Hkv)·D·e + Hq·s], the lse being part of what returns; for their product the sum
/// of both, with the mesh's share over the heads of one rank.
TEST(Strategy, BytesOfTheHeadMeshMatchTheFormulas) {
  Index const tokens_per_rank = 96;
  double const n = static_cast<double>(tokens_per_rank);
  for (int u = 1; u <= 8; u *= 2) {
    for (int a = 1; a <= 5; ++a) {
      for (int b = 1; b <= 4; ++b) {
        int const ranks = u * a * b;
        Shape shape = llama_like(tokens_per_rank * ranks);
        shape.q_heads = 32;
        shape.kv_heads = 8;
        Problem const problem = problem_of(shape, Mask::full(shape.q_tokens, shape.kv_tokens));
        double const mesh = n * ((a - 1) * 32 * (64 * 2 + (64 + 2) * 4) + (b - 1) * 2 * 8 * 64 * 2);
        double const exchange = (u - 1.0) / u * n * ((2 * 32 + 2 * 8) * 64 * 2 + 32 * 4);
        std::string const name =
            "ulysses:" + std::to_string(u) + "+mesh:" + std::to_string(a) + "x" + std::to_string(b);
        Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
        Volume const moved = volume(make_plan(problem, layouts, name));
        for (std::size_t rank = 0; rank < moved.sent.size(); ++rank) {
          EXPECT_EQ(static_cast<double>(moved.sent[rank]), mesh + exchange) << name << " rank " << rank;
          EXPECT_EQ(static_cast<double>(moved.received[rank]), mesh + exchange) << name << " rank " << rank;
        }
        for (int stages = 1; u == ranks && u > 1 && stages <= 8 / u; ++stages) {
          std::string const staged = "ulysses:" + std::to_string(u) + ":" + std::to_string(stages);
          EXPECT_EQ(volume(make_plan(problem, layouts, staged)).sent, moved.sent) << staged;
          EXPECT_EQ(volume(make_plan(problem, layouts, staged)).received, moved.received) << staged;
        }
        if (u == 1) {
          std::string const grid = "mesh:" + std::to_string(a) + "x" + std::to_string(b);
          EXPECT_EQ(volume(make_plan(problem, layouts, grid)).sent, moved.sent) << grid;
        }
      }
    }
  }
}

/// Heads that do not divide: a rank has ⌊H/P⌋ or ⌈H/P⌉ of them, and all rows come home.
TEST(Strategy, UlyssesTakesUnevenHeads) {
  Shape shape = llama_like(300);
  shape.q_heads = 14;
  shape.kv_heads = 7;
  Problem const problem = problem_of(shape, Mask::causal(300, 300));
  for (int ranks = 2; ranks <= 7; ++ranks) {
    for (std::string const& name :
         {std::string("ulysses"), fmt::format("ulysses:{}:1", ranks), fmt::format("ulysses:{}:3", ranks)}) {
      if (name.ends_with(":3") && ranks > 2) continue;  // not every rank has three
      Plan const plan = make_plan(problem, make_layouts("zigzag", problem.mask, ranks), name);
      auto const violations = verify(plan);
      EXPECT_TRUE(violations.empty()) << name << ": " << violations.front().message;
    }
  }
  EXPECT_THROW((void)make_plan(problem, make_layouts("zigzag", problem.mask, 3), "ulysses:3:3"),
               InvalidProblem);
  try {
    (void)make_plan(problem, make_layouts("zigzag", problem.mask, 8), "ulysses");
    FAIL();
  } catch (InvalidProblem const& error) {
    EXPECT_NE(std::string(error.what()).find("8 ranks cannot share 7 key/value heads"), std::string::npos)
        << error.what();
  }
}

/// A node and hop send the blocks of one rank over the network; bytes per rank are the ring's.
TEST(Strategy, TheHierarchicalRingSparesTheNetwork) {
  int const nodes = 3;
  int const size = 4;
  Index const tokens = 128 * nodes * size;
  Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
  Layouts const layouts = make_layouts("contiguous", problem.mask, nodes * size);
  Plan const plan = make_plan(problem, layouts, "hierarchical:3x4");
  EXPECT_EQ(volume(plan).sent, volume(make_plan(problem, layouts, "ring")).sent);
  std::uint64_t const block = 128 * 2 * 2 * 64 * 2;
  for (std::size_t round = 0; round < plan.rounds(); ++round) {
    for (int node = 0; node < nodes; ++node) {
      std::uint64_t crossing = 0;
      for (int rank = node * size; rank < (node + 1) * size; ++rank) {
        for (Transfer const& send : plan.programs[static_cast<std::size_t>(rank)].round(round).sends) {
          if (send.peer / size != node) crossing += bytes(plan.block(send.block), problem.shape);
        }
      }
      bool const last_outer_step = round / size + 1 >= static_cast<std::size_t>(nodes);
      EXPECT_EQ(crossing, last_outer_step ? 0 : block) << "round " << round << ", node " << node;
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

/// Whether what a rank receives is of use there: folded with something that the mask lets it meet, or sent
/// on.
bool is_used(Plan const& plan, Program const& mine, Transfer const& receive) {
  Block const& part = plan.block(receive.block);
  Block const& whole = plan.block(receive.whole);
  // A rank's block that is cut for its way only is needed as a whole, or not at all.
  Slice const rows = whole.home == part.home ? whole.slice : part.slice;
  auto const kept = [&](Slice q, Slice kv) { return plan.problem.mask.area(q, kv) > 0; };
  for (Fold const& fold : mine.folds) {
    if (fold.kv == receive.whole && kept(plan.block(fold.q).slice, rows)) return true;
    if (fold.q == receive.whole && kept(rows, plan.block(fold.kv).slice)) return true;
  }
  return std::ranges::any_of(mine.sends, [&](Transfer const& send) {
    return send.whole == receive.whole && !intersect(plan.block(send.block).slice, rows).empty();
  });
}

/// In every plan of any mask and layout, queries, keys and values go only where the mask needs them, or on
/// the way there.
TEST(Strategy, NothingGoesWhereNothingNeedsIt) {
  std::uint64_t const seed = test::seed_or(12);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 100; ++round) {
    Index const tokens = uniform(random, 1, round % 4 == 0 ? 3000 : 60);
    int const ranks = static_cast<int>(uniform(random, 2, 8));
    Mask const mask = test::random_mask(random, tokens, tokens);
    Problem const problem = problem_of(llama_like(tokens), mask);
    Layouts const layouts = test::random_layouts(random, mask, ranks);
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      Plan const plan = make_plan(problem, layouts, strategy);
      for (Program const& mine : plan.programs) {
        for (Transfer const& receive : mine.receives) {
          Tensor const tensor = plan.block(receive.block).tensor;
          if (tensor != Tensor::q && tensor != Tensor::kv) continue;
          ASSERT_TRUE(is_used(plan, mine, receive))
              << strategy << " over " << ranks << ": " << describe(plan.block(receive.block));
        }
      }
    }
  }
}

TEST(Strategy, DocumentsThatStayAtHomeMoveNothing) {
  Mask const mask = Mask::documents(std::vector<Index>{64, 64, 64, 64});
  Problem const problem = problem_of(llama_like(256), mask);
  Layouts const layouts = make_layouts("contiguous", mask, 4);
  for (std::string const name : {"ring", "allgather", "allgather:1", "passq", "mesh:2x2", "mesh:4x1", "tree",
                                 "tree:direct", "hierarchical:2x2"}) {  // all but those that spread heads
    Plan const plan = make_plan(problem, layouts, name);
    Volume const moved = volume(plan);
    EXPECT_EQ(std::accumulate(moved.sent.begin(), moved.sent.end(), std::uint64_t{0}), 0u) << name;
    EXPECT_EQ(plan.rounds(), 1u) << name;
  }
}

/// Slots are reused: memory per rank does not grow with the number of ranks, beyond the state at home.
TEST(Strategy, SlotsDoNotGrowWithTheRanks) {
  auto const slots_of = [](std::string_view name, int ranks) {
    Index const tokens = 100 * ranks;
    Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
    return volume(make_plan(problem, make_layouts("contiguous", problem.mask, ranks), name)).slots.front();
  };
  for (std::string_view const name : {"ring", "allgather", "passq"}) {
    EXPECT_EQ(slots_of(name, 8), slots_of(name, 16)) << name;
  }
  EXPECT_EQ(slots_of("hierarchical:3x4", 12), slots_of("hierarchical:5x4", 20));
  std::uint64_t const state = 100 * 8 * (64 + 2) * 4;
  std::uint64_t const kv = 100 * 2 * (64 + 64) * 2;
  EXPECT_EQ(slots_of("ring", 8), state + 2 * kv);
  EXPECT_EQ(slots_of("allgather", 8), state + 2 * kv);
}

TEST(Strategy, PlansAreDeterministic) {
  Mask const mask = Mask::causal(300, 300);
  Problem const problem = problem_of(llama_like(300), mask);
  Layouts const layouts = make_layouts("balanced", mask, 7);
  for (std::string const& name : test::all_variants(problem, layouts)) {
    EXPECT_EQ(make_plan(problem, layouts, name).programs, make_plan(problem, layouts, name).programs);
  }
}

/// What a rank does in each round, in any order, without rounds in which it has nothing to do; its finishes
/// last, on their own.
std::vector<std::multiset<std::string>> steps_of(Plan const& plan, int rank) {
  std::vector<std::multiset<std::string>> rounds;
  std::multiset<std::string> finishes;
  Program const& program = plan.programs[static_cast<std::size_t>(rank)];
  auto const text = [&](BlockId id) { return describe(plan.block(id)); };
  for (std::size_t index = 0; index < program.rounds(); ++index) {
    Round const round = program.round(index);
    std::multiset<std::string> steps;
    for (Transfer const& send : round.sends) {
      steps.insert(fmt::format("to {}: {}", send.peer, text(send.block)));
    }
    for (Transfer const& receive : round.receives) {
      steps.insert(fmt::format("from {}: {} of {}", receive.peer, text(receive.block), text(receive.whole)));
    }
    for (Fold const& fold : round.folds) {
      steps.insert(fmt::format("fold {} {} {}", text(fold.q), text(fold.kv), fold.start == Start::carried));
    }
    for (Merge const& merge : round.merges) steps.insert(fmt::format("merge {}", text(merge.state)));
    for (Reduction const& part : round.reductions) {
      steps.insert(fmt::format("reduce {} {}", text(part.state), part.into == at_rest));
    }
    if (!steps.empty()) rounds.push_back(std::move(steps));
    for (Finish const& finish : round.finishes) finishes.insert(text(finish.out));
  }
  rounds.push_back(std::move(finishes));
  return rounds;
}

TEST(Strategy, ProgramsOfAFewRanksAreThoseOfTheWholePlan) {
  std::uint64_t const seed = test::seed_or(6);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 150; ++round) {
    Index const q_tokens = uniform(random, 0, round % 4 == 0 ? 6000 : 60);
    Index const kv_tokens = round % 2 == 0 ? q_tokens : uniform(random, 0, 60);
    auto const ranks = static_cast<int>(uniform(random, 1, 16));
    Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
    Shape shape = llama_like(q_tokens);
    shape.kv_tokens = kv_tokens;
    shape.kv_heads = 4;
    Problem const problem = problem_of(shape, mask);
    Layouts const layouts = test::random_layouts(random, mask, ranks);
    std::vector<int> few;
    while (static_cast<int>(few.size()) < (ranks + 3) / 4) {
      few.push_back(static_cast<int>(uniform(random, 0, ranks - 1)));
    }
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      Plan const whole = make_plan(problem, layouts, strategy);
      Plan const part = make_plan(problem, layouts, strategy, few);
      for (int rank = 0; rank < ranks; ++rank) {
        if (std::ranges::find(few, rank) == few.end()) {
          ASSERT_EQ(part.programs[static_cast<std::size_t>(rank)], Program{}) << strategy;
          continue;
        }
        auto steps = steps_of(part, rank);
        auto const wanted = steps_of(whole, rank);
        ASSERT_TRUE(std::ranges::includes(wanted.back(), steps.back())) << strategy;
        steps.back() = wanted.back();
        ASSERT_EQ(steps, wanted) << strategy << ", rank " << rank << " of " << ranks;
      }
    }
  }
}

TEST(Strategy, UnknownNamesAndForeignLayoutsAreRefused) {
  Problem const problem = problem_of(llama_like(64), Mask::full(64, 64));
  try {
    (void)make_plan(problem, make_layouts("contiguous", problem.mask, 2), "rong");
    FAIL();
  } catch (InvalidProblem const& error) {
    EXPECT_NE(std::string(error.what())
                  .find("strategy 'rong': must be one of ring[:PIECES], allgather[:each|:ROUNDS], passq, "
                        "mesh[:AxB], "),
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
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      auto const violations = verify(make_plan(problem, layouts, strategy));
      ASSERT_TRUE(violations.empty())
          << strategy << ", " << ranks << " ranks, " << q_tokens << " × " << kv_tokens
          << " tokens: " << name(violations.front().law) << ": " << violations.front().message;
    }
  }
}

}  // namespace
}  // namespace plait
