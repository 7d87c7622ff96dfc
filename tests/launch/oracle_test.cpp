// The oracle against results known in closed form, and against a long double computation in another order.
#include "oracle.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace plait {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// Dense tensors of one attention, [batch, rows, heads, dim], in their element type.
struct Tensors {
  DType dtype = DType::f32;
  Index batch = 1, q_rows = 1, kv_rows = 1, q_heads = 1, kv_heads = 1, dim = 1, value_dim = 1;
  std::vector<std::byte> q = {}, k = {}, v = {};

  [[nodiscard]] TensorView q_view() const {
    return dense<void const>(q.data(), dtype, batch, q_rows, q_heads, dim);
  }
  [[nodiscard]] TensorView k_view() const {
    return dense<void const>(k.data(), dtype, batch, kv_rows, kv_heads, dim);
  }
  [[nodiscard]] TensorView v_view() const {
    return dense<void const>(v.data(), dtype, batch, kv_rows, kv_heads, value_dim);
  }
};

std::vector<std::byte> stored(DType type, std::vector<float> const& values) {
  std::vector<std::byte> bytes(values.size() * size_bytes(type));
  for (std::size_t i = 0; i < values.size(); ++i)
    store(type, bytes.data(), static_cast<std::ptrdiff_t>(i), values[i]);
  return bytes;
}

/// One batch entry, one head.
Tensors small(Index dim, Index value_dim, std::vector<float> const& q, std::vector<float> const& k,
              std::vector<float> const& v) {
  return {.q_rows = static_cast<Index>(q.size()) / dim,
          .kv_rows = static_cast<Index>(k.size()) / dim,
          .dim = dim,
          .value_dim = value_dim,
          .q = stored(DType::f32, q),
          .k = stored(DType::f32, k),
          .v = stored(DType::f32, v)};
}

bool keeps_all(Index, Index) {
  return true;
}
bool keeps_causal(Index q, Index k) {
  return k <= q;
}

OracleInput input(Tensors const& tensors, std::function<bool(Index, Index)> keeps, double scale) {
  std::vector<Index> positions(static_cast<std::size_t>(tensors.q_rows));
  std::iota(positions.begin(), positions.end(), Index{0});
  return {.q = tensors.q_view(),
          .q_positions = positions,
          .kv_tokens = tensors.kv_rows,
          .kv_heads = tensors.kv_heads,
          .value_dim = tensors.value_dim,
          .keys = [&tensors](Slice rows) { return tensors.k_view().rows_of(rows); },
          .values = [&tensors](Slice rows) { return tensors.v_view().rows_of(rows); },
          .keeps = std::move(keeps),
          .scale = scale,
          .block_tokens = 7};
}

TEST(Oracle, EqualScoresGiveTheMean) {
  // q = 0, so every key weighs the same: out is the mean, lse = log(number of keys).
  Tensors const t = small(2, 1, {0, 0, 0, 0, 0, 0}, {1, 2, 3, 4, 5, 6}, {3, 6, 12});
  OracleResult const full = compute_oracle(input(t, keeps_all, 1.0));
  for (double const out : full.out) EXPECT_NEAR(out, 7.0, 1e-14);
  for (double const lse : full.lse) EXPECT_NEAR(lse, std::log(3.0), 1e-15);
  OracleResult const causal = compute_oracle(input(t, keeps_causal, 1.0));
  EXPECT_EQ(causal.out[0], 3.0);
  EXPECT_NEAR(causal.out[1], 4.5, 1e-14);
  EXPECT_NEAR(causal.out[2], 7.0, 1e-14);
  EXPECT_EQ(causal.lse[0], 0.0);
  EXPECT_NEAR(causal.lse[1], std::log(2.0), 1e-15);
}

TEST(Oracle, OneKeyGivesItsValue) {
  Tensors const t = small(2, 3, {1.5f, -2}, {4, 0.5f}, {7, -8, 0.25f});
  OracleResult const result = compute_oracle(input(t, keeps_all, 0.5));
  EXPECT_EQ(result.out, (std::vector<double>{7, -8, 0.25}));
  EXPECT_EQ(result.lse, std::vector<double>{0.5 * (6.0 - 1.0)});
  EXPECT_EQ(result.plain_out, (std::vector<float>{7, -8, 0.25f}));
  EXPECT_EQ(result.score_magnitude, 0.5 * (6.0 + 1.0));
}

TEST(Oracle, TwoByTwoByHand) {
  // Scores with scale ln 2 / 1: row 0 is (0, ln 2), so weights 1/3 and 2/3; row 1 is (2 ln 2, 0): 4/5 and
  // 1/5.
  Tensors const t = small(2, 2, {1, 0, 0, 1}, {0, 2, 1, 0}, {3, 0, 6, 15});
  OracleResult const result = compute_oracle(input(t, keeps_all, std::log(2.0)));
  std::vector<double> const out{5, 10, 3.6, 3};
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(result.out[i], out[i], 1e-14);
  EXPECT_NEAR(result.lse[0], std::log(3.0), 1e-15);
  EXPECT_NEAR(result.lse[1], std::log(5.0), 1e-15);
}

TEST(Oracle, LargeLogitsSelectOneKey) {
  // Identity-like: query i meets key i with a logit of 1e4, all others with −1e4 or 0; nothing overflows.
  Tensors const t = small(2, 1, {100, 0, 0, 100}, {100, -100, -100, 100}, {5, -3});
  OracleResult const result = compute_oracle(input(t, keeps_all, 1.0));
  EXPECT_EQ(result.out, (std::vector<double>{5, -3}));
  EXPECT_EQ(result.lse, (std::vector<double>{1e4, 1e4}));
  EXPECT_EQ(result.plain_out, (std::vector<float>{5, -3}));
}

TEST(Oracle, RowsWithoutKeysAndKeysThatNobodySees) {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  Tensors const t = small(1, 2, {1, 1}, {nan, 2}, {nan, nan, 3, 4});
  OracleResult const result = compute_oracle(input(
      t, [](Index q, Index k) { return q == 1 && k == 1; }, 1.0));
  EXPECT_EQ(result.out, (std::vector<double>{0, 0, 3, 4}));
  EXPECT_EQ(result.lse, (std::vector<double>{-inf, 2}));
  EXPECT_EQ(result.plain_out, (std::vector<float>{0, 0, 3, 4}));
  EXPECT_EQ(lse_tolerance(result).plain_error, 0.0);

  Tensors const no_keys = small(1, 1, {1, 1}, {}, {});
  EXPECT_EQ(compute_oracle(input(no_keys, keeps_all, 1.0)).lse, (std::vector<double>{-inf, -inf}));
  Tensors const no_rows = small(1, 1, {}, {1}, {1});
  EXPECT_TRUE(compute_oracle(input(no_rows, keeps_all, 1.0)).out.empty());
}

/// Row by row in long double, keys from last to first, without a maximum: another order and another formula.
struct Reference {
  std::vector<long double> out;  // [batch, rows, heads, value_dim]
  std::vector<long double> lse;  // [batch, heads, rows]
};
Reference reference(Tensors const& t, std::function<bool(Index, Index)> const& keeps, double scale) {
  Reference result;
  result.lse.resize(static_cast<std::size_t>(t.batch * t.q_heads * t.q_rows));
  auto const element = [&](TensorView const& view, Index b, Index row, Index head, Index i) {
    return static_cast<long double>(load(view.dtype, view.data, view.offset(b, row, head) + i));
  };
  for (Index b = 0; b < t.batch; ++b) {
    for (Index row = 0; row < t.q_rows; ++row) {
      for (Index head = 0; head < t.q_heads; ++head) {
        Index const kv_head = head * t.kv_heads / t.q_heads;
        long double sum = 0;
        std::vector<long double> weighted(static_cast<std::size_t>(t.value_dim), 0.0L);
        for (Index key = t.kv_rows; key-- > 0;) {
          if (!keeps(row, key)) continue;
          long double dot = 0;
          for (Index i = t.dim; i-- > 0;) {
            dot += element(t.q_view(), b, row, head, i) * element(t.k_view(), b, key, kv_head, i);
          }
          long double const weight = std::exp(dot * static_cast<long double>(scale));
          sum += weight;
          for (Index i = 0; i < t.value_dim; ++i) {
            weighted[static_cast<std::size_t>(i)] += weight * element(t.v_view(), b, key, kv_head, i);
          }
        }
        for (long double const each : weighted) result.out.push_back(sum > 0 ? each / sum : 0.0L);
        result.lse[static_cast<std::size_t>((b * t.q_heads + head) * t.q_rows + row)] = std::log(sum);
      }
    }
  }
  return result;
}

Tensors random_tensors(DType dtype, std::mt19937_64& random) {
  auto const from = [&](Index low, Index high) {
    return low + static_cast<Index>(random() % (high - low + 1));
  };
  Tensors t{.dtype = dtype, .batch = from(1, 2), .q_rows = from(1, 20), .kv_rows = from(1, 40)};
  t.kv_heads = from(1, 3);
  t.q_heads = t.kv_heads * from(1, 3);
  t.dim = from(1, 70);
  t.value_dim = from(1, 40);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  auto const fill = [&](Index count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return stored(dtype, values);
  };
  t.q = fill(t.batch * t.q_rows * t.q_heads * t.dim);
  t.k = fill(t.batch * t.kv_rows * t.kv_heads * t.dim);
  t.v = fill(t.batch * t.kv_rows * t.kv_heads * t.value_dim);
  return t;
}

class OracleOfType : public testing::TestWithParam<DType> {};

TEST_P(OracleOfType, AgreesWithLongDoubleInAnotherOrder) {
  std::mt19937_64 random(99);
  for (int round = 0; round < 30; ++round) {
    Tensors const t = random_tensors(GetParam(), random);
    auto const keeps = [round](Index q, Index k) {
      return round % 3 == 0 || (q * 7 + k * 5 + round) % 4 != 0;
    };
    double const scale = 1.0 / std::sqrt(static_cast<double>(t.dim));
    OracleResult const result = compute_oracle(input(t, keeps, scale));
    Reference const expected = reference(t, keeps, scale);
    ASSERT_EQ(result.out.size(), expected.out.size());
    ASSERT_EQ(result.lse.size(), expected.lse.size());
    for (std::size_t i = 0; i < result.out.size(); ++i) {
      ASSERT_NEAR(result.out[i], static_cast<double>(expected.out[i]), 2e-14) << "round " << round;
    }
    for (std::size_t i = 0; i < result.lse.size(); ++i) {
      double const lse = static_cast<double>(expected.lse[i]);
      if (std::isinf(lse)) {
        ASSERT_EQ(result.lse[i], lse);
      } else {
        ASSERT_NEAR(result.lse[i], lse, 2e-14) << "round " << round;
      }
    }
  }
}

TEST_P(OracleOfType, ResultsDoNotDependOnTheBlockSize) {
  std::mt19937_64 random(5);
  Tensors const t = random_tensors(GetParam(), random);
  OracleInput one = input(t, keeps_all, 0.25);
  OracleInput whole = one;
  one.block_tokens = 1;
  whole.block_tokens = 1000;
  OracleResult const a = compute_oracle(one);
  OracleResult const b = compute_oracle(whole);
  for (std::size_t i = 0; i < a.out.size(); ++i) EXPECT_NEAR(a.out[i], b.out[i], 1e-14);
  for (std::size_t i = 0; i < a.lse.size(); ++i) EXPECT_NEAR(a.lse[i], b.lse[i], 1e-14);
}

/// The plain implementation's error is what arithmetic in the type explains: present, and not more.
TEST_P(OracleOfType, PlainErrorIsOfTheTypesSize) {
  std::mt19937_64 random(3);
  double const unit = rounding_unit(GetParam(), 1.0);
  double largest = 0.0;
  for (int round = 0; round < 10; ++round) {
    Tensors const t = random_tensors(GetParam(), random);
    OracleResult const result =
        compute_oracle(input(t, keeps_all, 1.0 / std::sqrt(static_cast<double>(t.dim))));
    double const error = out_tolerance(result).plain_error;
    largest = std::max(largest, error);
    // Scores up to about 10 and values up to about 6, each rounded; weights sum to 1.
    EXPECT_LT(error, 60.0 * unit);
    EXPECT_LT(lse_tolerance(result).plain_error, 40.0 * rounding_unit(DType::f32, 1.0));
    EXPECT_EQ(out_tolerance(result).value(), 2.0 * error + 2.0 * out_tolerance(result).unit);
  }
  EXPECT_GT(largest, 0.5 * unit);
}

INSTANTIATE_TEST_SUITE_P(Types, OracleOfType, testing::Values(DType::f32, DType::f16, DType::bf16),
                         [](auto const& type) { return std::string(name(type.param)); });

TEST(Oracle, PlainRoundsScoresWeightsAndOutputsToTheType) {
  // bf16 keeps 8 bits. Scores 256 and 257 − the second rounds to 256, so the plain weights are equal.
  Tensors t = small(1, 1, {1}, {}, {});
  t.dtype = DType::bf16;
  t.kv_rows = 2;
  t.dim = 2;
  t.q = stored(DType::bf16, {1, 1});
  t.k = stored(DType::bf16, {256, 0, 256, 1});
  t.v = stored(DType::bf16, {0, 1});
  OracleResult const result = compute_oracle(input(t, keeps_all, 1.0));
  EXPECT_NEAR(result.out[0], 1.0 / (1.0 + std::exp(-1.0)), 1e-15);
  EXPECT_EQ(result.plain_out[0], 0.5f);
  EXPECT_NEAR(result.plain_lse[0], 257.0 + std::log1p(std::exp(-1.0)), 2e-5);  // of the unrounded scores
  // Three equal keys: the weight 1/3 is 171/512 in bf16, and 1.25 · 171/512 = 213.75/512 rounds to 214/512
  // (where 1.25/3 = 213.33/512 would round to 213/512).
  t.kv_rows = 3;
  t.k = stored(DType::bf16, {0, 0, 0, 0, 0, 0});
  t.v = stored(DType::bf16, {1.25f, 0, 0});
  EXPECT_EQ(compute_oracle(input(t, keeps_all, 1.0)).plain_out[0], 214.0f / 512.0f);
}

TEST(Oracle, AnOverflowOfThePlainTypeDoesNotWidenTheTolerance) {
  // Scores of 160,000 and 80,000 are infinities in f16.
  Tensors t = small(1, 1, {400}, {}, {});
  t.dtype = DType::f16;
  t.kv_rows = 2;
  t.q = stored(DType::f16, {400});
  t.k = stored(DType::f16, {400, 200});
  t.v = stored(DType::f16, {2, 3});
  OracleResult const result = compute_oracle(input(t, keeps_all, 1.0));
  EXPECT_EQ(result.out[0], 2.0);
  EXPECT_EQ(result.plain_out[0], 2.0f);
  // An infinity in the input spoils the oracle's row, never the tolerance.
  t.k = stored(DType::f16, {std::numeric_limits<float>::infinity(), 200});
  OracleResult const spoilt = compute_oracle(input(t, keeps_all, 1.0));
  EXPECT_TRUE(std::isfinite(out_tolerance(spoilt).value()));
  EXPECT_TRUE(std::isfinite(lse_tolerance(spoilt).value()));
  EXPECT_EQ(compare_out(spoilt, t.v_view().rows_of({0, 1})).max_abs_error, inf);
}

TEST(RoundingUnit, IsHalfTheDistanceToTheNextNumber) {
  for (double const magnitude : {1.0, 1.5, 1.999, 2.0, 3e-3, 1e4, 3.7}) {
    auto const f = static_cast<float>(magnitude);
    EXPECT_EQ(rounding_unit(DType::f32, static_cast<double>(f)), 0.5 * (std::nextafter(f, 1e30f) - f));
    float const b = bf16_to_float(float_to_bf16(f));
    EXPECT_EQ(rounding_unit(DType::bf16, b),
              0.5 * (bf16_to_float(static_cast<std::uint16_t>(float_to_bf16(b) + 1)) - b));
    float const h = f16_to_float(float_to_f16(f));
    EXPECT_EQ(rounding_unit(DType::f16, h),
              0.5 * (f16_to_float(static_cast<std::uint16_t>(float_to_f16(h) + 1)) - h));
  }
  EXPECT_EQ(rounding_unit(DType::f16, 0.0), 0x1p-25);  // half the smallest subnormal, 2^−24
  EXPECT_EQ(rounding_unit(DType::f16, 1e-6), 0x1p-25);
  EXPECT_EQ(rounding_unit(DType::f32, -8.0), 0x1p-21);
}

TEST(Compare, FindsTheWorstElement) {
  Tensors const t = small(1, 2, {0, 0}, {0}, {1, 2});
  OracleInput given = input(t, keeps_all, 1.0);
  given.q_positions = {40, 70};
  OracleResult const oracle = compute_oracle(given);
  std::vector<float> out{1, 2, 1, 2};
  TensorView const view = dense<void const>(out.data(), DType::f32, 1, 2, 1, 2);
  EXPECT_EQ(compare_out(oracle, view).max_abs_error, 0.0);
  out = {1, 2.25f, 1, 1.5f};
  Difference const worst = compare_out(oracle, view);
  EXPECT_EQ(worst.max_abs_error, 0.5);
  EXPECT_EQ(describe(worst), "1.5 instead of 2 at batch 0, query 70, head 0, dim 1");
  out[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(compare_out(oracle, view).max_abs_error, inf);
  EXPECT_EQ(compare_out(oracle, view).q_position, 40);
  EXPECT_THROW((void)compare_out(oracle, view.rows_of({0, 1})), std::invalid_argument);
}

TEST(Compare, InfinitiesOfEmptyRowsAreEqual) {
  Tensors const t = small(1, 1, {0, 0}, {0}, {1});
  OracleResult const oracle = compute_oracle(input(
      t, [](Index q, Index) { return q == 1; }, 1.0));
  float const infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{-infinity, 0.0f}).max_abs_error, 0.0);
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{-infinity, 0.5f}).max_abs_error, 0.5);
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{infinity, 0.0f}).max_abs_error, inf);
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{-1e30f, 0.0f}).max_abs_error, inf);
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{-infinity, -infinity}).max_abs_error, inf);
  EXPECT_EQ(compare_lse(oracle, std::vector<float>{std::nanf(""), 0.0f}).max_abs_error, inf);
  EXPECT_THROW((void)compare_lse(oracle, std::vector<float>{0.0f}), std::invalid_argument);
}

TEST(Oracle, RefusesViewsOfAnotherShape) {
  Tensors const t = small(1, 1, {0, 0}, {0, 0, 0}, {1, 1, 1});
  OracleInput given = input(t, keeps_all, 1.0);
  given.keys = [&](Slice) { return t.k_view().rows_of({0, 1}); };
  EXPECT_THROW((void)compute_oracle(given), std::invalid_argument);
  given = input(t, keeps_all, 1.0);
  given.q_positions.pop_back();
  EXPECT_THROW((void)compute_oracle(given), std::invalid_argument);
  given = input(t, keeps_all, 1.0);
  given.kv_heads = 2;
  EXPECT_THROW((void)compute_oracle(given), std::invalid_argument);
}

}  // namespace
}  // namespace plait
