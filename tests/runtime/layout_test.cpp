#include "plait/layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "random_problem.hpp"

namespace plait {
namespace {

using test::Random;
using test::uniform;

/// Every position has one owner, and its local row counts the rank's earlier positions.
void expect_partition(Layout const& layout) {
  std::vector<int> owners(static_cast<std::size_t>(layout.tokens()), -1);
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    Index row = 0;
    for (Slice const slice : layout.slices(rank)) {
      EXPECT_FALSE(slice.empty());
      for (Index position = slice.begin; position < slice.end; ++position) {
        ASSERT_EQ(owners.at(static_cast<std::size_t>(position)), -1);
        owners[static_cast<std::size_t>(position)] = rank;
        ASSERT_EQ(layout.local_row(rank, position), row++);
      }
    }
    EXPECT_EQ(layout.tokens(rank), row);
  }
  for (int const owner : owners) EXPECT_NE(owner, -1);
}

Index row_area(Mask const& mask, Index q) {
  Index kept = 0;
  for (Index k = 0; k < mask.kv_tokens(); ++k) kept += mask.keeps(q, k) ? 1 : 0;
  return kept;
}

TEST(Layout, ContiguousSpreadsTheRemainder) {
  Layout const layout = Layout::contiguous(10, 4);
  expect_partition(layout);
  EXPECT_EQ(layout.slices(0), (std::vector<Slice>{{0, 3}}));
  EXPECT_EQ(layout.slices(3), (std::vector<Slice>{{8, 10}}));
}

TEST(Layout, FewerTokensThanRanksLeavesRanksEmpty) {
  for (Layout const& layout :
       {Layout::contiguous(2, 5), Layout::zigzag(2, 5), Layout::balanced(Mask::causal(2, 2), 5),
        Layout::contiguous(0, 3), Layout::zigzag(0, 3), Layout::balanced(Mask::full(0, 0), 3)}) {
    expect_partition(layout);
  }
}

TEST(Layout, ZigzagPairsChunksFromBothEnds) {
  Layout const layout = Layout::zigzag(16, 4);
  expect_partition(layout);
  EXPECT_EQ(layout.slices(1), (std::vector<Slice>{{2, 4}, {12, 14}}));
  EXPECT_EQ(layout.slices(3), (std::vector<Slice>{{6, 10}}));  // chunks 3 and 4 touch
  EXPECT_DOUBLE_EQ(imbalance(Mask::causal(16, 16), layout), 1.0);
}

/// The promise of `balanced`: equal area up to a few rows, for any mask; token counts that differ by at most
/// one.
TEST(Layout, BalancedHasEqualAreaAndEqualTokensForAnyMask) {
  std::uint64_t const seed = test::seed_or(3);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 80; ++round) {
    Index const q_tokens = uniform(random, 1, 200);
    Index const kv_tokens = round % 3 == 0 ? uniform(random, 1, 200) : q_tokens;
    int const ranks = static_cast<int>(uniform(random, 1, 9));
    Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
    Layout const layout = Layout::balanced(mask, ranks);
    expect_partition(layout);
    Index heaviest_row = 0;
    for (Index q = 0; q < q_tokens; ++q) heaviest_row = std::max(heaviest_row, row_area(mask, q));
    double const mean = static_cast<double>(mask.area()) / ranks;
    for (int rank = 0; rank < ranks; ++rank) {
      Index kept = 0;
      for (Slice const slice : layout.slices(rank)) {
        for (Index q = slice.begin; q < slice.end; ++q) kept += row_area(mask, q);
      }
      EXPECT_LE(std::abs(static_cast<double>(kept) - mean), 2.0 * static_cast<double>(heaviest_row))
          << "rank " << rank << " of " << ranks << ", " << q_tokens << " × " << kv_tokens << " tokens";
      EXPECT_LE(layout.tokens(rank), (q_tokens + ranks - 1) / ranks);
      EXPECT_GE(layout.tokens(rank), q_tokens / ranks);
    }
  }
}

TEST(Layout, BalancedIsWithinOnePercentOnLongSequences) {
  Index const tokens = 1 << 20;
  std::vector<Index> lengths{1 << 19, 100, 1 << 18, 7777};
  lengths.push_back(tokens - (1 << 19) - 100 - (1 << 18) - 7777);
  for (Mask const& mask :
       {Mask::full(tokens, tokens), Mask::causal(tokens, tokens), Mask::window(tokens, tokens, 4096, 0),
        Mask::documents(lengths).intersect(Mask::causal(tokens, tokens))}) {
    for (int ranks : {2, 7, 64}) {
      Layout const layout = Layout::balanced(mask, ranks);
      EXPECT_LE(imbalance(mask, layout), 1.01) << ranks << " ranks, " << mask.bands().size() << " bands";
      std::size_t slices = 0;
      for (int rank = 0; rank < ranks; ++rank) slices += layout.slices(rank).size();
      EXPECT_LE(slices, static_cast<std::size_t>(2 * ranks)) << "a necklace needs 2(P−1) cuts";
    }
  }
}

/// Whom a mask lets meet, asked for as runs of ranks, against what it says of every slice of every rank.
TEST(Layout, OwnersOfWhatMeetsAreThoseThatMeet) {
  std::uint64_t const seed = test::seed_or(12);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  std::size_t met = 0;
  for (int round = 0; round < 300; ++round) {
    Index const q_tokens = uniform(random, 1, 120);
    Index const kv_tokens = round % 3 == 0 ? uniform(random, 1, 120) : q_tokens;
    auto const ranks = static_cast<int>(uniform(random, 1, 12));
    Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
    Layouts const layouts = test::random_layouts(random, mask, ranks);
    Index const begin = uniform(random, 0, std::min(q_tokens, kv_tokens));
    Slice const slice{begin, uniform(random, begin, std::min(q_tokens, kv_tokens))};
    RankSet const keys = layouts.kv.owners(mask.keys_of(slice));
    RankSet const queries = layouts.q.owners(mask.queries_of(slice));
    for (int rank = 0; rank < ranks; ++rank) {
      bool const serves =
          std::ranges::any_of(layouts.kv.slices(rank), [&](Slice kv) { return mask.area(slice, kv) > 0; });
      bool const needs =
          std::ranges::any_of(layouts.q.slices(rank), [&](Slice q) { return mask.area(q, slice) > 0; });
      ASSERT_EQ(keys.contains(rank), serves) << "rank " << rank << ", round " << round;
      ASSERT_EQ(queries.contains(rank), needs) << "rank " << rank << ", round " << round;
      met += serves ? 1U : 0U;
    }
  }
  EXPECT_GT(met, 300U);
}

TEST(Layout, SlicesMustCoverOnce) {
  auto const message_of = [](Index tokens, std::vector<std::vector<Slice>> slices) -> std::string {
    try {
      (void)Layout::from_slices(tokens, std::move(slices));
    } catch (InvalidProblem const& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(message_of(8, {{{0, 4}}, {{5, 8}}}).find("leaves out position 4"), std::string::npos);
  EXPECT_NE(message_of(8, {{{0, 4}}, {{3, 8}}}).find("gives away twice position 3"), std::string::npos);
  EXPECT_NE(message_of(8, {{{0, 4}}, {{4, 7}}}).find("covers 7 tokens of 8"), std::string::npos);
  EXPECT_NE(message_of(8, {}).find("0 ranks"), std::string::npos);
}

TEST(Layouts, AutoTakesTheSimplestThatIsBalanced) {
  Index const tokens = 1 << 16;
  EXPECT_EQ(make_layouts("auto", Mask::full(tokens, tokens), 4),
            make_layouts("contiguous", Mask::full(tokens, tokens), 4));
  EXPECT_EQ(make_layouts("auto", Mask::causal(tokens, tokens), 4),
            make_layouts("zigzag", Mask::causal(tokens, tokens), 4));
  Mask const ragged =
      Mask::documents(std::vector<Index>{60000, 5536}).intersect(Mask::causal(tokens, tokens));
  EXPECT_EQ(make_layouts("auto", ragged, 4), make_layouts("balanced", ragged, 4));
  EXPECT_THROW((void)make_layouts("diagonal", ragged, 4), InvalidProblem);
}

TEST(Layouts, RootHasAllQueriesAndItsShareOfTheKeys) {
  for (Index const q_tokens : {0, 1, 7, 16}) {
    Layouts const layouts = make_layouts("root", Mask::full(q_tokens, 16), 4);
    expect_partition(layouts.q);
    EXPECT_EQ(layouts.q.tokens(0), q_tokens);
    EXPECT_EQ(layouts.kv, Layout::contiguous(16, 4));
  }
}

TEST(Layouts, CrossAttentionSpreadsKeysEvenly) {
  Layouts const layouts = make_layouts("zigzag", Mask::causal(16, 40), 4);
  EXPECT_EQ(layouts.q, Layout::zigzag(16, 4));
  EXPECT_EQ(layouts.kv, Layout::contiguous(40, 4));
}

}  // namespace
}  // namespace plait
