// The two ends of a calibration: times made by hand.
#include "calibration_plans.hpp"

#include <gtest/gtest.h>

namespace plait {
namespace {

TEST(BothEnds, AreOfOneSpeedUpToATenth) {
  EXPECT_TRUE(of_one_speed({.first = {0.1, 0.3}, .last = {0.1, 0.3}}));
  EXPECT_TRUE(of_one_speed({.first = {0.1, 0.3}, .last = {0.11, 0.32}}));
  EXPECT_TRUE(of_one_speed({.first = {0.11, 0.32}, .last = {0.1, 0.3}}));
  EXPECT_FALSE(of_one_speed({.first = {0.1, 0.3}, .last = {0.12, 0.33}}));
  EXPECT_FALSE(of_one_speed({.first = {0.12, 0.33}, .last = {0.1, 0.3}}));
  // All plans together count: one that is warm at the end, and short, changes little.
  EXPECT_TRUE(of_one_speed({.first = {0.03, 0.3}, .last = {0.02, 0.3}}));
}

TEST(BothEnds, TheFirstCountsUnlessTheLastIsFasterByMore) {
  std::vector<double> const short_times{0.1, 0.3};
  std::vector<double> const as_short{0.095, 0.28};
  std::vector<double> const long_times{0.12, 0.4};
  EXPECT_EQ(undisturbed({short_times, as_short}), short_times);
  EXPECT_EQ(undisturbed({as_short, short_times}), as_short);
  EXPECT_EQ(undisturbed({short_times, long_times}), short_times);
  EXPECT_EQ(undisturbed({long_times, short_times}), short_times);
}

TEST(BothEnds, AreToldAsAllPlansTogether) {
  EXPECT_EQ(describe(BothEnds{.first = {0.1, 0.3}, .last = {0.2, 0.36}}),
            "whole attentions took 400.00 ms at its start, 560.00 ms at its end");
}

}  // namespace
}  // namespace plait
