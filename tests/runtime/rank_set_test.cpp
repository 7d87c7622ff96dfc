// Runs of ranks against a set that lists them one by one.
#include "plait/rank_set.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "random_problem.hpp"

namespace plait {
namespace {

TEST(RankSet, CountsAndFindsAsASetDoes) {
  std::uint64_t const seed = test::seed_or(5);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  test::Random random(seed);
  auto const rank = [&] { return static_cast<int>(test::uniform(random, 0, 20)); };
  for (int round = 0; round < 200; ++round) {
    std::vector<RankRange> ranges;
    std::set<int> expected;
    for (Index i = test::uniform(random, 0, 5); i > 0; --i) {
      ranges.push_back({rank(), rank()});  // some are empty
      for (int one = ranges.back().begin; one < ranges.back().end; ++one) expected.insert(one);
    }
    RankSet const found(ranges);
    int n = 0;
    for (int const one : expected) EXPECT_EQ(found.at(n++), one);
    EXPECT_EQ(found.at(n), -1);
    for (int one = 0; one <= 21; ++one) EXPECT_EQ(found.contains(one), expected.contains(one)) << one;
    RankRange const within{rank(), rank()};
    int last = -1;
    int count = 0;
    for (int const one : expected) {
      if (one < within.begin || one >= within.end) continue;
      last = one;
      ++count;
    }
    EXPECT_EQ(found.last(within), last);
    if (within.begin < within.end) {  // on foot round the range, from anywhere in it
      int const size = within.end - within.begin;
      int const start = static_cast<int>(test::uniform(random, within.begin, within.end - 1));
      int around = -1;
      for (int step = start; step < start + size; ++step) {
        if (expected.contains(step < within.end ? step : step - size)) around = step;
      }
      EXPECT_EQ(found.last_around(within, start), around);
    }
    EXPECT_EQ(found.count(within), count);
    for (std::size_t i = 1; i < found.ranges().size(); ++i) {
      EXPECT_LT(found.ranges()[i - 1].end, found.ranges()[i].begin);
    }
  }
}

}  // namespace
}  // namespace plait
