// The laws of the one merge.
#include "plait/state.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace plait {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// One row with one column of O.
struct Row {
  float m = -infinity;
  float l = 0.0f;
  float o = 0.0f;
};

Row merge(Row const& left, Row const& right) {
  RowMerge const merged = merge_rows(left.m, right.m);
  return {merged.m, merged(left.l, right.l), merged(left.o, right.o)};
}

void expect_same_bits(Row const& a, Row const& b) {
  EXPECT_EQ(std::bit_cast<std::uint32_t>(a.m), std::bit_cast<std::uint32_t>(b.m));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(a.l), std::bit_cast<std::uint32_t>(b.l));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(a.o), std::bit_cast<std::uint32_t>(b.o));
}

std::vector<Row> rows() {
  std::vector<Row> found{{},
                         {0.0f, 1.0f, -0.0f},
                         {-0.0f, 1.0f, 0.0f},
                         {1e30f, 3.0f, -7.0f},
                         {-1e30f, 3.0f, 5.0f},
                         {std::numeric_limits<float>::max(), 1.0f, 1e-40f},
                         {-std::numeric_limits<float>::max(), 1.0f, -1e-40f},
                         {5.0f, 1e-38f, 1e38f}};
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 120; ++i) {
    float const l = std::exp(3.0f * normal(random));
    found.push_back({20.0f * normal(random), l, l * normal(random)});
  }
  return found;
}

TEST(Merge, WithTheIdentityGivesTheOtherBitForBit) {
  for (Row const& row : rows()) {
    expect_same_bits(merge({}, row), row);
    expect_same_bits(merge(row, {}), row);
  }
}

/// A row all of whose scores are NaN has no maximum, and an l that is NaN: no merge may lose it.
TEST(Merge, KeepsNaNs) {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  Row const lost{-infinity, nan, nan};
  for (Row const& row : {merge({}, lost), merge(lost, {}), merge(lost, lost)}) {
    EXPECT_EQ(row.m, -infinity);
    EXPECT_TRUE(std::isnan(row.l));
  }
}

TEST(Merge, CommutesBitForBit) {
  auto const all = rows();
  for (Row const& a : all) {
    for (Row const& b : all) {
      Row const left = merge(a, b);
      Row const right = merge(b, a);
      EXPECT_EQ(left.m, right.m);  // −0 and +0 are the same reference
      expect_same_bits({0.0f, left.l, left.o}, {0.0f, right.l, right.o});
    }
  }
}

TEST(Merge, NeverMakesANan) {
  auto const all = rows();
  for (Row const& a : all) {
    for (Row const& b : all) {
      Row const c = merge(a, b);
      EXPECT_FALSE(std::isnan(c.m) || std::isnan(c.l) || std::isnan(c.o)) << a.m << ' ' << b.m;
    }
  }
}

/// Against the merge's definition in double, and so associative up to rounding.
TEST(Merge, IsExactUpToRounding) {
  auto const value = [](Row const& row, double reference) {
    return std::pair(row.l * std::exp2(static_cast<double>(row.m) - reference),
                     row.o * std::exp2(static_cast<double>(row.m) - reference));
  };
  std::vector<Row> const all = rows();
  for (std::size_t i = 8; i + 2 < all.size(); ++i) {
    Row const& a = all[i];
    Row const& b = all[i + 1];
    Row const& c = all[i + 2];
    for (Row const& merged : {merge(merge(a, b), c), merge(a, merge(b, c))}) {
      double l = 0.0;
      double o = 0.0;
      double size = 0.0;
      for (Row const& part : {a, b, c}) {
        auto const [part_l, part_o] = value(part, merged.m);
        l += part_l;
        o += part_o;
        size += std::abs(part_o);
      }
      EXPECT_EQ(merged.m, std::max({a.m, b.m, c.m}));
      EXPECT_NEAR(merged.l, l, 4e-7 * l);
      EXPECT_NEAR(merged.o, o, 4e-7 * size);
    }
  }
}

}  // namespace
}  // namespace plait
