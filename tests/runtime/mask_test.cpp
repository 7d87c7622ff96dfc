#include "plait/mask.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "random_problem.hpp"

namespace plait {
namespace {

using test::Random;
using test::uniform;
using Keeps = std::function<bool(Index, Index)>;

/// Compares a mask with a predicate, pair by pair, and its areas with counts.
void expect_same(Mask const& mask, Keeps const& keeps) {
  Index kept = 0;
  for (Index q = 0; q < mask.q_tokens(); ++q) {
    for (Index k = 0; k < mask.kv_tokens(); ++k) {
      ASSERT_EQ(mask.keeps(q, k), keeps(q, k)) << "q " << q << " k " << k;
      kept += keeps(q, k) ? 1 : 0;
      Index holders = 0;
      for (Band const& band : mask.bands()) holders += band.keeps(q, k) ? 1 : 0;
      ASSERT_LE(holders, 1) << "bands overlap at q " << q << " k " << k;
    }
  }
  EXPECT_EQ(mask.area(), kept);
}

std::string message_of(std::function<void()> const& action) {
  try {
    action();
  } catch (InvalidProblem const& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Mask, FullKeepsAll) {
  expect_same(Mask::full(5, 7), [](Index, Index) { return true; });
}

TEST(Mask, CausalIsBottomRightAligned) {
  for (auto const& [q_tokens, kv_tokens] : {std::pair<Index, Index>{6, 6}, {3, 8}, {8, 3}, {1, 5}}) {
    expect_same(Mask::causal(q_tokens, kv_tokens),
                [&](Index q, Index k) { return k - q - (kv_tokens - q_tokens) <= 0; });
  }
}

TEST(Mask, WindowCountsFromTheBottomRightDiagonal) {
  for (Index left : {-1, 0, 2, 100}) {
    for (Index right : {-1, 0, 3, 100}) {
      expect_same(Mask::window(6, 9, left, right), [&](Index q, Index k) {
        Index const j = k - q - 3;
        return (left == -1 || -left <= j) && (right == -1 || j <= right);
      });
    }
  }
}

TEST(Mask, DocumentsSeeThemselvesOnly) {
  std::vector<Index> const lengths{3, 0, 1, 5};
  std::vector<int> const owner{0, 0, 0, 2, 3, 3, 3, 3, 3};
  Mask const mask = Mask::documents(lengths);
  ASSERT_EQ(mask.q_tokens(), 9);
  expect_same(mask, [&](Index q, Index k) {
    return owner[static_cast<std::size_t>(q)] == owner[static_cast<std::size_t>(k)];
  });
}

TEST(Mask, BlocksKeepWhatTheTableKeepsWithRaggedEdges) {
  std::vector<std::uint8_t> const kept{1, 0, 1, 1,  //
                                       0, 1, 1, 0};
  expect_same(Mask::blocks(7, 14, 4, kept),
              [&](Index q, Index k) { return kept[static_cast<std::size_t>((q / 4) * 4 + k / 4)] != 0; });
}

TEST(Mask, EmptyAxesKeepNothing) {
  for (auto const& [q_tokens, kv_tokens] : {std::pair<Index, Index>{0, 0}, {0, 4}, {4, 0}}) {
    EXPECT_EQ(Mask::causal(q_tokens, kv_tokens).area(), 0);
    EXPECT_TRUE(Mask::full(q_tokens, kv_tokens).bands().empty());
  }
}

TEST(Mask, IntersectionsRestrictionsAndAreasMatchAPredicate) {
  std::uint64_t const seed = test::seed_or(2);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 60; ++round) {
    Index const q_tokens = uniform(random, 1, 24);
    Index const kv_tokens = round % 2 == 0 ? q_tokens : uniform(random, 1, 24);
    Mask const a = test::random_mask(random, q_tokens, kv_tokens);
    Mask const b = test::random_mask(random, q_tokens, kv_tokens);
    expect_same(a.intersect(b), [&](Index q, Index k) { return a.keeps(q, k) && b.keeps(q, k); });
    Slice const q{uniform(random, 0, q_tokens), uniform(random, 0, q_tokens)};
    Slice const kv{uniform(random, 0, kv_tokens), uniform(random, 0, kv_tokens)};
    std::vector<Band> const parts = a.restricted(q, kv);
    Index inside = 0;
    for (Index i = 0; i < q_tokens; ++i) {
      for (Index j = 0; j < kv_tokens; ++j) {
        bool const wanted = q.contains(i) && kv.contains(j) && a.keeps(i, j);
        auto const holders = std::ranges::count_if(parts, [&](Band const& band) { return band.keeps(i, j); });
        ASSERT_EQ(holders, wanted ? 1 : 0);
        inside += wanted ? 1 : 0;
      }
    }
    EXPECT_EQ(a.area(q, kv), inside);
    EXPECT_EQ(a.meets(q, kv), inside > 0);
  }
}

TEST(Mask, HugeAxesDoNotOverflow) {
  Index const tokens = Index{1} << 31;
  EXPECT_EQ(Mask::causal(tokens, tokens).area(), tokens * (tokens + 1) / 2);
  EXPECT_EQ(Mask::window(tokens, tokens, 10, 0).area(), 11 * tokens - 55);
  EXPECT_EQ(Mask::window(tokens, tokens, std::numeric_limits<Index>::max(), 0).area(),
            tokens * (tokens + 1) / 2);
}

TEST(Mask, OverlappingBandsAreRefusedByName) {
  Band const a{.q = {0, 4}, .kv = {0, 4}, .hi = 0};
  Band const b{.q = {2, 6}, .kv = {1, 3}, .lo = -2};
  std::string const message = message_of([&] { (void)Mask::from_bands(8, 8, {a, b}); });
  EXPECT_NE(message.find("q [0, 4) kv [0, 4) lo * hi 0"), std::string::npos) << message;
  EXPECT_NE(message.find("bands overlap"), std::string::npos) << message;
  // Touching rectangles, and crossing rectangles kept apart by their diagonals, are fine.
  EXPECT_EQ(
      Mask::from_bands(8, 8, {{.q = {0, 8}, .kv = {0, 8}, .hi = 0}, {.q = {0, 8}, .kv = {0, 8}, .lo = 1}})
          .area(),
      64);
}

TEST(Mask, BadValuesAreNamed) {
  EXPECT_NE(message_of([] { (void)Mask::window(4, 4, -2, 0); }).find("window -2,0"), std::string::npos);
  EXPECT_NE(message_of([] {
              (void)Mask::documents(std::vector<Index>{3, -1});
            }).find("-1 tokens"),
            std::string::npos);
  EXPECT_NE(message_of([] { (void)Mask::blocks(8, 8, 0, {}); }).find("block size 0"), std::string::npos);
  std::vector<std::uint8_t> const three(3);
  EXPECT_NE(message_of([&] { (void)Mask::blocks(8, 8, 4, three); }).find("3 entries"), std::string::npos);
  EXPECT_NE(message_of([] {
              (void)Mask::from_bands(4, 4, {{.q = {0, 5}, .kv = {0, 4}}});
            }).find("must lie within"),
            std::string::npos);
  EXPECT_NE(
      message_of([] { (void)Mask::full(4, 4).intersect(Mask::full(4, 5)); }).find("cannot be intersected"),
      std::string::npos);
}

}  // namespace
}  // namespace plait
