// What strategies do in which round: how deep their plans are, what is folded beside transfers, and how
// blocks are cut for that.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

#include "plait/strategy.hpp"
#include "plait/verify.hpp"
#include "plait/volume.hpp"
#include "random_problem.hpp"
#include "strategy_case.hpp"

namespace plait {
namespace {

using test::llama_like;
using test::problem_of;

/// Nothing moves while a rank has nothing to fold: a part of what stays at home is left for the last outputs.
/// In the contiguous layout that is rank 0 under a causal mask, whose own queries need no other keys.
TEST(StrategyRounds, UlyssesFoldsBesideWhateverMoves) {
  struct Case {
    bool causal;
    std::string layout;
    std::size_t ranks_that_fold;
  };
  for (std::size_t const ranks : {2u, 4u}) {
    for (Case const& given :
         {Case{false, "contiguous", ranks}, Case{true, "zigzag", ranks}, Case{true, "contiguous", 1}}) {
      Index const tokens = 4096 * static_cast<Index>(ranks);
      Shape shape = llama_like(tokens);
      shape.q_heads = shape.kv_heads = 4;
      Problem const problem =
          problem_of(shape, given.causal ? Mask::causal(tokens, tokens) : Mask::full(tokens, tokens));
      Layouts const layouts = make_layouts(given.layout, problem.mask, static_cast<int>(ranks));
      Plan const plan = make_plan(problem, layouts, "ulysses");
      ASSERT_TRUE(verify(plan).empty());
      for (std::size_t rank = 0; rank < given.ranks_that_fold; ++rank) {
        for (std::size_t index = 0; index < plan.programs[rank].rounds(); ++index) {
          Round const round = plan.programs[rank].round(index);
          EXPECT_TRUE(round.sends.empty() || !round.folds.empty())
              << given.layout << ", rank " << rank << " of " << ranks << ", round " << index;
        }
      }
    }
  }
}

/// In stages of heads, a rank's fold of a stage is one, of all tokens, from nothing, in whatever layout; and
/// a stage's heads come, and the outputs of the one before last go, while another is folded.
TEST(StrategyRounds, UlyssesInStagesFoldsOnceInEach) {
  constexpr int ranks = 4;
  Index const tokens = 512 * ranks;
  Shape shape = llama_like(tokens);
  shape.q_heads = 16;
  shape.kv_heads = 8;
  Problem const problem = problem_of(shape, Mask::causal(tokens, tokens));
  for (std::string const layout : {"contiguous", "zigzag"}) {
    for (std::size_t const stages : {1u, 2u}) {
      Plan const plan =
          make_plan(problem, make_layouts(layout, problem.mask, ranks), fmt::format("ulysses:4:{}", stages));
      ASSERT_TRUE(verify(plan).empty()) << layout;
      ASSERT_EQ(plan.rounds(), stages + 2);
      for (Program const& mine : plan.programs) {
        ASSERT_EQ(mine.folds.size(), stages);
        for (std::size_t stage = 0; stage < stages; ++stage) {
          Round const round = mine.round(stage + 1);
          ASSERT_EQ(round.folds.size(), 1u);
          EXPECT_EQ(round.folds[0].start, Start::identity);
          EXPECT_EQ(plan.block(round.folds[0].q).slice, (Slice{0, tokens}));
          EXPECT_EQ(plan.block(round.folds[0].kv).slice, (Slice{0, tokens}));
          EXPECT_EQ(plan.block(round.folds[0].kv).heads.size(), 8 / ranks / static_cast<Index>(stages));
          EXPECT_EQ(round.receives.empty(), stages == 1);
        }
      }
    }
  }
}

/// One query over sharded keys: the states of P ranks meet in ⌈log2 P⌉ rounds of sends, or in one.
TEST(StrategyRounds, TreesAreAsDeepAsTheirLogarithm) {
  for (int ranks = 2; ranks <= 17; ++ranks) {
    Shape shape = llama_like(1);
    shape.kv_tokens = 64 * ranks;
    Problem const problem = problem_of(shape, Mask::full(1, shape.kv_tokens));
    Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
    for (auto const& [name, depth] : {std::pair{"tree", std::ceil(std::log2(ranks))}, {"tree:direct", 1.0}}) {
      Plan const plan = make_plan(problem, layouts, name);
      std::set<std::size_t> rounds;
      for (Program const& program : plan.programs) {
        for (std::size_t round = 0; round < plan.rounds(); ++round) {
          for (Transfer const& send : program.round(round).sends) {
            if (plan.block(send.block).tensor == Tensor::state) rounds.insert(round);
          }
        }
      }
      EXPECT_EQ(static_cast<double>(rounds.size()), depth) << name << " over " << ranks;
      Volume const moved = volume(plan);
      std::uint64_t const all = std::accumulate(moved.sent.begin(), moved.sent.end(), std::uint64_t{0});
      std::uint64_t const visit = 8 * 64 * 2 + 8 * (64 + 2) * 4;  // the query there, its state back
      EXPECT_EQ(all, static_cast<std::uint64_t>(ranks - 1) * visit) << name << " over " << ranks;
    }
  }
}

/// Of the only fold of `rank`.
std::size_t round_of_fold(Plan const& plan, std::size_t rank) {
  std::size_t round = 0;
  while (plan.programs[rank].round(round).folds.empty()) ++round;
  return round;
}

/// A rank that has all queries folds its own keys at once, as the others do: it has no states to send home
/// first. Where all have some, each keeps a part of its folds for the time in which its states come back.
TEST(StrategyRounds, OwnFoldsAreCutWhereOthersWaitForTheRank) {
  Shape shape = llama_like(64);
  shape.kv_tokens = 16384;
  Problem const problem = problem_of(shape, Mask::full(64, shape.kv_tokens));
  for (std::string const strategy : {"tree:direct", "tree:log", "passq"}) {
    Plan const root = make_plan(problem, make_layouts("root", problem.mask, 4), strategy);
    ASSERT_TRUE(verify(root).empty());
    for (Program const& program : root.programs) EXPECT_EQ(program.folds.size(), 1u) << strategy;
    // And in a tree in the round of those that are last to have the queries.
    if (strategy != "passq") {
      EXPECT_EQ(round_of_fold(root, 0), round_of_fold(root, 3)) << strategy;
    }
    Plan const spread = make_plan(problem, make_layouts("contiguous", problem.mask, 4), strategy);
    ASSERT_TRUE(verify(spread).empty());
    for (std::size_t rank = 0; rank < 4; ++rank) {
      auto const& folds = spread.programs[rank].folds;
      auto const own = std::ranges::count_if(
          folds, [&](Fold const& fold) { return spread.block(fold.q).home == static_cast<int>(rank); });
      EXPECT_EQ(own, 2) << strategy << ", rank " << rank;
    }
  }
}

/// The reduce-scatter form moves what the direct one does, counted at the least: queries there, parts of all
/// rows back, also those of ranks whose keys the mask drops.
TEST(StrategyRounds, NativeReductionsAreOneRoundOfAllRanks) {
  for (int const ranks : {2, 3, 7}) {
    Shape shape = llama_like(5 * ranks);
    shape.kv_tokens = 64 * ranks;
    Problem const problem = problem_of(shape, Mask::full(shape.q_tokens, shape.kv_tokens));
    Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
    Plan const native = make_plan(problem, layouts, "tree:native");
    EXPECT_EQ(volume(native).sent, volume(make_plan(problem, layouts, "tree:direct")).sent);
    EXPECT_EQ(volume(native).received, volume(make_plan(problem, layouts, "tree:direct")).received);
    std::uint64_t const visit = 5 * (8 * 64 * 2 + 8 * (64 + 2) * 4);
    EXPECT_EQ(sent_per_peer(native, 0), [&] {
      std::vector<std::uint64_t> sent(static_cast<std::size_t>(ranks), visit);
      sent.front() = 0;
      return sent;
    }());
    for (Program const& program : native.programs) {
      EXPECT_EQ(program.reductions.size(), static_cast<std::size_t>(ranks));
      EXPECT_TRUE(program.merges.empty());
    }
  }
}

/// Every rank has something to fold from the first round on, and a part only of what it gets comes in that
/// round, unless one round is asked for, or stages of heads.
TEST(StrategyRounds, FoldsStartWithTheFirstRound) {
  int const ranks = 8;
  Index const tokens = 8192 * ranks;
  Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
  Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
  for (std::string const& strategy : test::all_variants(problem, layouts)) {
    if (strategy.starts_with("ulysses:8:")) continue;
    Plan const plan = make_plan(problem, layouts, strategy);
    for (std::size_t rank = 0; rank < 8; ++rank) {
      Round const first = plan.programs[rank].round(0);
      EXPECT_FALSE(first.folds.empty()) << strategy << ", rank " << rank;
      std::uint64_t arriving = 0;
      for (Transfer const& receive : first.receives)
        arriving += bytes(plan.block(receive.block), problem.shape);
      std::uint64_t const least_left = strategy == "allgather:1" ? 0 : arriving;
      EXPECT_LE(arriving + least_left, volume(plan).received[rank]) << strategy << ", rank " << rank;
    }
  }
}

/// The last states to come back find their home folding, not waiting.
TEST(StrategyRounds, TheLastStatesComeBackBesideFolds) {
  Index const tokens = 16384;
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (auto const& [mask, layout] : {std::pair{Mask::full(tokens, tokens), "contiguous"},
                                       std::pair{Mask::causal(tokens, tokens), "zigzag"}}) {
      Problem const problem = problem_of(llama_like(tokens), mask);
      for (std::string const& name :
           {std::string("passq"), std::string("tree:direct"), fmt::format("mesh:{}x1", ranks)}) {
        Plan const plan = make_plan(problem, make_layouts(layout, mask, ranks), name);
        for (Program const& mine : plan.programs) {
          std::size_t last = mine.rounds() - 1;
          while (mine.round(last).receives.empty()) --last;
          EXPECT_EQ(plan.block(mine.round(last).receives.back().block).tensor, Tensor::state);
          EXPECT_FALSE(mine.round(last).folds.empty()) << name << " over " << ranks << ", " << layout;
        }
      }
    }
  }
}

/// One query to a long cache is folded once on each rank: a second fold would cost more than it hides.
TEST(StrategyRounds, ADecodingStepIsFoldedOnce) {
  int const ranks = 4;
  Shape shape = llama_like(65536);
  shape.q_tokens = 4;
  Problem const problem = problem_of(shape, Mask::full(4, 65536));
  for (std::string const name : {"passq", "tree:log", "tree:direct", "tree:native"}) {
    Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), name);
    for (Program const& mine : plan.programs) EXPECT_EQ(mine.folds.size(), 4u) << name;
  }
}

/// With few ranks the blocks travel in pieces, so that folds start early; slots then hold pieces.
TEST(StrategyRounds, FewRanksCutTheBlocksThatTravel) {
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
  // As many pieces, or rounds, as are asked for; but none of fewer than 64 tokens.
  for (auto const& [name, rounds] : {std::pair<std::string_view, std::size_t>{"ring:1", 2},
                                     {"ring:3", 4},
                                     {"ring:2000000000", 17},
                                     {"allgather:1", 2},
                                     {"allgather:2000000000", 17}}) {
    EXPECT_EQ(make_plan(problem, layouts, name).rounds(), rounds) << name;
  }
}

TEST(StrategyRounds, LongSlicesAreCutLess) {
  for (auto const& [tokens_of_rank, ranks, pieces] : {std::tuple<Index, int, std::size_t>{4096, 2, 8},
                                                      {4096, 4, 3},
                                                      {8192, 2, 2},
                                                      {8192, 4, 1},
                                                      {16384, 2, 1}}) {
    Index const tokens = tokens_of_rank * ranks;
    Problem const problem = problem_of(llama_like(tokens), Mask::full(tokens, tokens));
    Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "ring");
    std::set<BlockId> sent;
    for (Transfer const& transfer : plan.programs[0].sends) {
      if (plan.block(transfer.block).home == 0) sent.insert(transfer.block);
    }
    EXPECT_EQ(sent.size(), pieces) << tokens_of_rank << " tokens of each of " << ranks << " ranks";
  }
}

}  // namespace
}  // namespace plait
