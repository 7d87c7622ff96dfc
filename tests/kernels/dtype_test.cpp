// Element types against conversions by definition, in double.
#include "plait/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace plait {
namespace {

/// A 16-bit format by its number of exponent bits: value from its fields.
double value_of(std::uint16_t bits, int exponent_bits) {
  int const mantissa_bits = 15 - exponent_bits;
  int const bias = (1 << (exponent_bits - 1)) - 1;
  int const exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  int const mantissa = bits & ((1 << mantissa_bits) - 1);
  double const sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

/// The nearest of all finite values, ties to the even pattern; infinity from half a step past the largest.
std::uint16_t nearest(double value, int exponent_bits) {
  int const mantissa_bits = 15 - exponent_bits;
  std::uint16_t const infinity = static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  std::uint16_t const sign = std::signbit(value) ? 0x8000 : 0;
  double const magnitude = std::abs(value);
  std::uint16_t low = 0;
  std::uint16_t high = infinity;
  while (high - low > 1) {  // patterns are ordered like the values
    auto const middle = static_cast<std::uint16_t>((low + high) / 2);
    (value_of(middle, exponent_bits) <= magnitude ? low : high) = middle;
  }
  double const step_past = high == infinity ? 2 * value_of(low, exponent_bits) -
                                                  value_of(static_cast<std::uint16_t>(low - 1), exponent_bits)
                                            : value_of(high, exponent_bits);
  double const below = magnitude - value_of(low, exponent_bits);
  double const above = step_past - magnitude;
  bool const up = above < below || (above == below && (low & 1) != 0);
  return static_cast<std::uint16_t>(sign | (up ? high : low));
}

class Formats : public testing::TestWithParam<int> {
 protected:
  [[nodiscard]] bool half() const { return GetParam() == 5; }
  [[nodiscard]] float widen(std::uint16_t bits) const {
    return half() ? f16_to_float(bits) : bf16_to_float(bits);
  }
  [[nodiscard]] std::uint16_t narrow(float value) const {
    return half() ? float_to_f16(value) : float_to_bf16(value);
  }
};

TEST_P(Formats, EveryPatternWidensToItsValueAndBack) {
  for (int pattern = 0; pattern < 65536; ++pattern) {
    auto const bits = static_cast<std::uint16_t>(pattern);
    double const value = value_of(bits, GetParam());
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(widen(bits)));
      EXPECT_TRUE(std::isnan(widen(narrow(widen(bits)))));
      continue;
    }
    ASSERT_EQ(static_cast<double>(widen(bits)), value) << pattern;
    ASSERT_EQ(narrow(widen(bits)), bits) << pattern;
  }
}

TEST_P(Formats, RoundsToNearestEven) {
  std::mt19937 random(5);
  std::uniform_int_distribution<std::uint32_t> any;
  int checked = 0;
  for (int i = 0; i < 200000; ++i) {
    auto const value = std::bit_cast<float>(any(random));
    if (std::isnan(value)) continue;
    ++checked;
    ASSERT_EQ(narrow(value), nearest(value, GetParam())) << std::hexfloat << value;
  }
  EXPECT_GT(checked, 190000);
  // Halfway points between neighbours, and the floats next to them.
  for (int pattern = 0; pattern < 0x7c00; ++pattern) {
    double const here = value_of(static_cast<std::uint16_t>(pattern), GetParam());
    double const next = value_of(static_cast<std::uint16_t>(pattern + 1), GetParam());
    if (!std::isfinite(next)) break;
    auto const middle = static_cast<float>((here + next) / 2);
    for (float const value : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e38f), -middle}) {
      ASSERT_EQ(narrow(value), nearest(value, GetParam())) << std::hexfloat << value;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ExponentBits, Formats, testing::Values(5, 8));

}  // namespace
}  // namespace plait
