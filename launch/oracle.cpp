#include "oracle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace plait {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float infinity_f = std::numeric_limits<float>::infinity();

std::size_t at(Index index) {
  return static_cast<std::size_t>(index);
}

/// Rounds an fp32 to the type and back.
float rounded(DType type, float value) {
  switch (type) {
    case DType::f32:
      return value;
    case DType::f16:
      return f16_to_float(float_to_f16(value));
    case DType::bf16:
      return bf16_to_float(float_to_bf16(value));
  }
  __builtin_unreachable();
}

/// The score of one pair, three ways.
struct Score {
  double exact = 0.0;
  float plain = 0.0f;    // fp32 products and sums
  float rounded = 0.0f;  // plain, rounded to the element type
  double magnitude = 0.0;
};

/// The softmax statistics of one row of one head: maximum, then sum of weights, for each way to score.
struct RowStatistics {
  double exact_max = -infinity, exact_sum = 0.0;
  float plain_max = -infinity_f, plain_sum = 0.0f;
  float rounded_max = -infinity_f, rounded_sum = 0.0f;
  double magnitude = 0.0;
};

/// A dense fp32 copy [batch, heads, rows, dim]: every input type converts to it exactly.
std::vector<float> to_float(TensorView const& view) {
  std::vector<float> copy(at(view.batch * view.heads * view.rows * view.dim));
  std::size_t next = 0;
  for (Index b = 0; b < view.batch; ++b) {
    for (Index head = 0; head < view.heads; ++head) {
      for (Index row = 0; row < view.rows; ++row) {
        Index const first = view.offset(b, row, head);
        for (Index i = 0; i < view.dim; ++i) copy[next++] = load(view.dtype, view.data, first + i);
      }
    }
  }
  return copy;
}

void check_view(TensorView const& view, char const* what, DType dtype, Index batch, Index rows, Index heads,
                Index dim) {
  if (view.dtype == dtype && view.batch == batch && view.rows == rows && view.heads == heads &&
      view.dim == dim) {
    return;
  }
  throw std::invalid_argument(fmt::format("oracle: {} is {} [{}, {}, {}, {}], expected {} [{}, {}, {}, {}]",
                                          what, name(view.dtype), view.batch, view.rows, view.heads, view.dim,
                                          name(dtype), batch, rows, heads, dim));
}

/// Three passes over the keys, each block by block: maxima, sums of weights, weighted values. Scores are
/// computed anew in each, so that none have to be kept and no sum has to be rescaled.
class Passes {
 public:
  explicit Passes(OracleInput const& input)
      : input_(input),
        q_(to_float(input.q)),
        rows_(input.q.batch * input.q.heads * input.q.rows),
        statistics_(at(rows_)),
        exact_out_(at(rows_ * input.value_dim)),
        plain_out_(at(rows_ * input.value_dim)) {}

  void run() {
    for_each_block([&](Slice block) { each_row([&](Index r) { add_maxima(r, block); }); });
    for_each_block([&](Slice block) { each_row([&](Index r) { add_sums(r, block); }); });
    for_each_block([&](Slice block) {
      TensorView const v = input_.values(block);
      check_view(v, "v", input_.q.dtype, input_.q.batch, block.size(), input_.kv_heads, input_.value_dim);
      v_ = to_float(v);
      each_row([&](Index r) { add_values(r, block); });
    });
  }

  [[nodiscard]] OracleResult result() const {
    TensorView const& q = input_.q;
    OracleResult result{.dtype = q.dtype,
                        .batch = q.batch,
                        .rows = q.rows,
                        .q_heads = q.heads,
                        .value_dim = input_.value_dim,
                        .q_positions = input_.q_positions};
    result.out.resize(exact_out_.size());
    result.plain_out.resize(exact_out_.size());
    for (Index r = 0; r < rows_; ++r) {
      RowStatistics const& row = statistics_[at(r)];
      // For a row that saw no key both terms are −inf.
      result.lse.push_back(row.exact_max + std::log(row.exact_sum));
      result.plain_lse.push_back(row.plain_max + std::log(row.plain_sum));
      result.score_magnitude = std::max(result.score_magnitude, row.magnitude);
      Index const b = r / (q.heads * q.rows);
      Index const head = r / q.rows % q.heads;
      Index const first = ((b * q.rows + r % q.rows) * q.heads + head) * input_.value_dim;
      for (Index i = 0; i < input_.value_dim; ++i) {
        result.out[at(first + i)] = exact_out_[at(r * input_.value_dim + i)];
        result.plain_out[at(first + i)] = rounded(q.dtype, plain_out_[at(r * input_.value_dim + i)]);
      }
    }
    return result;
  }

 private:
  template <class Use>
  void for_each_block(Use&& use) {
    for (Index begin = 0; begin < input_.kv_tokens; begin += input_.block_tokens) {
      Slice const block{begin, std::min(begin + input_.block_tokens, input_.kv_tokens)};
      TensorView const k = input_.keys(block);
      check_view(k, "k", input_.q.dtype, input_.q.batch, block.size(), input_.kv_heads, input_.q.dim);
      k_ = to_float(k);
      find_kept(block);
      use(block);
    }
  }

  void find_kept(Slice block) {
    kept_.assign(at(input_.q.rows * block.size()), 0);
#pragma omp parallel for schedule(static)
    for (Index row = 0; row < input_.q.rows; ++row) {
      Index const position = input_.q_positions[at(row)];
      for (Index k = block.begin; k < block.end; ++k) {
        kept_[at(row * block.size() + k - block.begin)] = input_.keeps(position, k) ? 1 : 0;
      }
    }
  }

  /// Rows r = (b · q_heads + head) · q_rows + row.
  template <class Use>
  void each_row(Use&& use) {
#pragma omp parallel for schedule(dynamic, 4)
    for (Index r = 0; r < rows_; ++r) use(r);
  }

  /// The kv row (b · kv_heads + head) of the block that query row r reads.
  [[nodiscard]] Index kv_row(Index r) const {
    Index const b = r / (input_.q.heads * input_.q.rows);
    Index const head = r / input_.q.rows % input_.q.heads;
    return b * input_.kv_heads + head / (input_.q.heads / input_.kv_heads);
  }

  [[nodiscard]] Score score(float const* q, float const* k) const {
    double exact = 0.0;
    double magnitude = 0.0;
#pragma omp simd reduction(+ : exact, magnitude)
    for (Index i = 0; i < input_.q.dim; ++i) {
      double const product = static_cast<double>(q[i]) * static_cast<double>(k[i]);
      exact += product;
      magnitude += std::abs(product);
    }
    float plain = 0.0f;  // in the elements' order, one sum, as a GEMM's accumulator takes them
    for (Index i = 0; i < input_.q.dim; ++i) plain += q[i] * k[i];
    Score score{.exact = exact * input_.scale,
                .plain = plain * static_cast<float>(input_.scale),
                .magnitude = magnitude * std::abs(input_.scale)};
    float const narrow = rounded(input_.q.dtype, score.plain);
    score.rounded = std::isinf(narrow) ? score.plain : narrow;
    return score;
  }

  /// Calls use(score, key within the block) for the keys that row r sees.
  template <class Use>
  void for_each_score(Index r, Slice block, Use&& use) const {
    std::uint8_t const* const kept = kept_.data() + r % input_.q.rows * block.size();
    float const* const q = q_.data() + r * input_.q.dim;
    float const* const k = k_.data() + kv_row(r) * block.size() * input_.q.dim;
    for (Index key = 0; key < block.size(); ++key) {
      if (kept[key] != 0) use(score(q, k + key * input_.q.dim), key);
    }
  }

  void add_maxima(Index r, Slice block) {
    RowStatistics row = statistics_[at(r)];
    for_each_score(r, block, [&](Score const& s, Index) {
      row.exact_max = std::max(row.exact_max, s.exact);
      row.plain_max = std::max(row.plain_max, s.plain);
      row.rounded_max = std::max(row.rounded_max, s.rounded);
      if (std::isfinite(s.magnitude)) row.magnitude = std::max(row.magnitude, s.magnitude);
    });
    statistics_[at(r)] = row;
  }

  void add_sums(Index r, Slice block) {
    RowStatistics& row = statistics_[at(r)];
    double exact = 0.0;
    float plain = 0.0f;
    float narrow = 0.0f;
    for_each_score(r, block, [&](Score const& s, Index) {
      exact += std::exp(s.exact - row.exact_max);
      plain += std::exp(s.plain - row.plain_max);
      narrow += std::exp(s.rounded - row.rounded_max);
    });
    row.exact_sum += exact;
    row.plain_sum += plain;
    row.rounded_sum += narrow;
  }

  void add_values(Index r, Slice block) {
    RowStatistics const& row = statistics_[at(r)];
    Index const dim = input_.value_dim;
    float const* const values = v_.data() + kv_row(r) * block.size() * dim;
    double* const exact = exact_out_.data() + r * dim;
    std::vector<float> plain(at(dim), 0.0f);  // of this block alone, as a blocked product accumulates
    for_each_score(r, block, [&](Score const& s, Index key) {
      double const exact_weight = std::exp(s.exact - row.exact_max) / row.exact_sum;
      float const weight = rounded(input_.q.dtype, std::exp(s.rounded - row.rounded_max) / row.rounded_sum);
      float const* const v = values + key * dim;
      for (Index i = 0; i < dim; ++i) {
        exact[i] += exact_weight * static_cast<double>(v[i]);
        plain[at(i)] += weight * v[i];
      }
    });
    for (Index i = 0; i < dim; ++i) plain_out_[at(r * dim + i)] += plain[at(i)];
  }

  OracleInput const& input_;
  std::vector<float> q_;  // [batch, q_heads, q_rows, head_dim]
  Index rows_;
  std::vector<RowStatistics> statistics_;  // [batch, q_heads, q_rows], as the two below
  std::vector<double> exact_out_;          // [.., value_dim]
  std::vector<float> plain_out_;
  std::vector<float> k_;            // the block: [batch, kv_heads, size, head_dim]
  std::vector<float> v_;            // [batch, kv_heads, size, value_dim]
  std::vector<std::uint8_t> kept_;  // [q_rows, size]
};

/// |value − expected|, with no way for a NaN or an infinity to look small.
double absolute_error(double value, double expected) {
  if (std::isinf(value) && value == expected) return 0.0;
  double const error = std::abs(value - expected);
  return std::isnan(error) ? infinity : error;
}

void take_worse(Difference& worst, Difference const& other) {
  if (other.max_abs_error > worst.max_abs_error) worst = other;
}

Tolerance finite_tolerance(std::vector<double> const& exact, std::vector<float> const& plain, DType type,
                           double magnitude) {
  Tolerance tolerance;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    // What overflows in the oracle or the plain implementation must not make a tolerance that passes
    // anything.
    double const error = absolute_error(static_cast<double>(plain[i]), exact[i]);
    if (std::isfinite(error)) tolerance.plain_error = std::max(tolerance.plain_error, error);
    if (std::isfinite(exact[i])) magnitude = std::max(magnitude, std::abs(exact[i]));
  }
  tolerance.unit = rounding_unit(type, magnitude);
  return tolerance;
}

}  // namespace

OracleResult compute_oracle(OracleInput const& input) {
  if (static_cast<Index>(input.q_positions.size()) != input.q.rows) {
    throw std::invalid_argument(
        fmt::format("oracle: {} positions for {} query rows", input.q_positions.size(), input.q.rows));
  }
  if (input.kv_heads < 1 || input.q.heads % input.kv_heads != 0 || input.block_tokens < 1) {
    throw std::invalid_argument(fmt::format("oracle: {} query heads over {} key/value heads, blocks of {}",
                                            input.q.heads, input.kv_heads, input.block_tokens));
  }
  Passes passes(input);
  passes.run();
  return passes.result();
}

double rounding_unit(DType type, double magnitude) {
  int const digits = type == DType::f32 ? 24 : type == DType::f16 ? 11 : 8;  // of the significand
  int const least = type == DType::f16 ? -14 : -126;  // exponent of the smallest normal
  int const exponent = magnitude == 0.0 ? least : std::max(std::ilogb(magnitude), least);
  return std::ldexp(1.0, exponent - digits);
}

Tolerance out_tolerance(OracleResult const& oracle) {
  return finite_tolerance(oracle.out, oracle.plain_out, oracle.dtype, 0.0);
}

Tolerance lse_tolerance(OracleResult const& oracle) {
  return finite_tolerance(oracle.lse, oracle.plain_lse, DType::f32, oracle.score_magnitude);
}

Difference compare_out(OracleResult const& oracle, TensorView out) {
  check_view(out, "out", out.dtype, oracle.batch, oracle.rows, oracle.q_heads, oracle.value_dim);
  Difference worst;
  std::size_t next = 0;
  for (Index b = 0; b < oracle.batch; ++b) {
    for (Index row = 0; row < oracle.rows; ++row) {
      for (Index head = 0; head < oracle.q_heads; ++head) {
        for (Index i = 0; i < oracle.value_dim; ++i, ++next) {
          double const value = load(out.dtype, out.data, out.offset(b, row, head) + i);
          double const expected = oracle.out[next];
          take_worse(worst, {absolute_error(value, expected), b, oracle.q_positions[at(row)], head, i, value,
                             expected});
        }
      }
    }
  }
  return worst;
}

Difference compare_lse(OracleResult const& oracle, std::span<float const> lse) {
  if (lse.size() != oracle.lse.size()) {
    throw std::invalid_argument(
        fmt::format("oracle: {} lse values, expected {}", lse.size(), oracle.lse.size()));
  }
  Difference worst;
  std::size_t next = 0;
  for (Index b = 0; b < oracle.batch; ++b) {
    for (Index head = 0; head < oracle.q_heads; ++head) {
      for (Index row = 0; row < oracle.rows; ++row, ++next) {
        double const value = lse[next];
        take_worse(worst, {absolute_error(value, oracle.lse[next]), b, oracle.q_positions[at(row)], head, 0,
                           value, oracle.lse[next]});
      }
    }
  }
  return worst;
}

std::string describe(Difference const& difference) {
  return fmt::format("{} instead of {} at batch {}, query {}, head {}, dim {}", difference.value,
                     difference.expected, difference.batch, difference.q_position, difference.head,
                     difference.dim);
}

}  // namespace plait
