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
  // All plans together count: a short one alone changes little.
  EXPECT_TRUE(of_one_speed({.first = {0.03, 0.3}, .last = {0.02, 0.3}}));
}

TEST(BothEnds, OfOneSpeedCountAlike) {
  std::vector<double> const means = undisturbed({.first = {0.1, 0.3}, .last = {0.12, 0.29}});
  ASSERT_EQ(means.size(), 2u);
  EXPECT_DOUBLE_EQ(means[0], 0.11);
  EXPECT_DOUBLE_EQ(means[1], 0.295);
}

TEST(BothEnds, TheFasterCountsAloneIfTheyDiffer) {
  std::vector<double> const short_times{0.1, 0.3};
  std::vector<double> const long_times{0.12, 0.4};
  EXPECT_EQ(undisturbed({short_times, long_times}), short_times);
  EXPECT_EQ(undisturbed({long_times, short_times}), short_times);
  // All of one end, though one plan took longer there: what is fitted is of one moment.
  std::vector<double> const mixed{0.09, 0.4};
  EXPECT_EQ(undisturbed({mixed, short_times}), short_times);
}

TEST(BothEnds, AreToldAsAllPlansTogether) {
  EXPECT_EQ(describe(BothEnds{.first = {0.1, 0.3}, .last = {0.2, 0.36}}),
            "whole attentions took 400.00 ms at its start, 560.00 ms at its end");
}

}  // namespace
}  // namespace plait
