// Bands against counting pair by pair.
#include "plait/band.hpp"

#include <gtest/gtest.h>

#include <random>

namespace plait {
namespace {

constexpr Index edge = 14;

class RandomBands : public testing::Test {
 protected:
  Index draw(Index low, Index high) { return std::uniform_int_distribution<Index>(low, high)(random_); }
  Slice slice() {
    Index const begin = draw(0, edge);
    return {begin, draw(begin, edge)};
  }
  Band band() {
    return {.q = slice(),
            .kv = slice(),
            .lo = draw(0, 3) == 0 ? Band::no_lo : draw(-edge, edge),
            .hi = draw(0, 3) == 0 ? Band::no_hi : draw(-edge, edge)};
  }
  template <class Use>
  static void for_each_pair(Use&& use) {
    for (Index q = 0; q < edge; ++q) {
      for (Index k = 0; k < edge; ++k) use(q, k);
    }
  }

 private:
  std::mt19937 random_{11};
};

TEST_F(RandomBands, AreaCountsTheKeptPairs) {
  for (int round = 0; round < 3000; ++round) {
    Band const b = band();
    Index kept = 0;
    for_each_pair([&](Index q, Index k) { kept += b.keeps(q, k) ? 1 : 0; });
    ASSERT_EQ(area(b), kept) << describe(b);
  }
}

TEST_F(RandomBands, IntersectionsKeepWhatBothKeep) {
  for (int round = 0; round < 500; ++round) {
    Band const a = band();
    Band const b = band();
    Band const both = intersect(a, b);
    Slice const q = slice();
    Slice const kv = slice();
    Band const part = intersect(a, q, kv);
    for_each_pair([&](Index i, Index j) {
      ASSERT_EQ(both.keeps(i, j), a.keeps(i, j) && b.keeps(i, j)) << describe(a) << " and " << describe(b);
      ASSERT_EQ(part.keeps(i, j), a.keeps(i, j) && q.contains(i) && kv.contains(j)) << describe(a);
    });
  }
}

TEST_F(RandomBands, TightenedBandsKeepTheSameAndHaveNoEmptyEdge) {
  for (int round = 0; round < 2000; ++round) {
    Band const b = band();
    Band const tight = tighten(b);
    for_each_pair([&](Index i, Index j) { ASSERT_EQ(tight.keeps(i, j), b.keeps(i, j)) << describe(b); });
    if (area(b) == 0) {
      EXPECT_EQ(tight, Band{}) << describe(b);
      continue;
    }
    auto const row = [&](Index q) { return area(intersect(b, {q, q + 1}, b.kv)); };
    auto const column = [&](Index k) { return area(intersect(b, b.q, {k, k + 1})); };
    EXPECT_GT(row(tight.q.begin), 0) << describe(b);
    EXPECT_GT(row(tight.q.end - 1), 0) << describe(b);
    EXPECT_GT(column(tight.kv.begin), 0) << describe(b);
    EXPECT_GT(column(tight.kv.end - 1), 0) << describe(b);
  }
}

TEST(Band, AreaIsExactForLongSequences) {
  Index const n = Index{1} << 31;
  EXPECT_EQ(area({.q = {0, n}, .kv = {0, n}}), n * n);
  EXPECT_EQ(area({.q = {0, n}, .kv = {0, n}, .hi = 0}), n * (n + 1) / 2);
  EXPECT_EQ(area({.q = {0, n}, .kv = {0, n}, .lo = 0, .hi = 0}), n);
}

}  // namespace
}  // namespace plait
