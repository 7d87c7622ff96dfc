// The oracle: attention in fp64 by its definition, and how far a plain implementation of the same element
// type strays from it. Shares no code with the folds, masks or merges that it judges.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "plait/tensor.hpp"

namespace plait {

/// The rows to compute, and where keys and values come from. Query head h reads key/value head
/// h / (q_heads / kv_heads). K and V are asked for in blocks, so memory does not grow with the sequence.
struct OracleInput {
  TensorView q = {};                    ///< [batch, rows, q_heads, head_dim]
  std::vector<Index> q_positions = {};  ///< token position of each of q's rows
  Index kv_tokens = 0;
  Index kv_heads = 1;
  Index value_dim = 0;
  /// Tokens [begin, end) of k: [batch, size, kv_heads, head_dim]; valid until the next call. Asked for three
  /// times over, in ascending order.
  std::function<TensorView(Slice)> keys = {};
  /// The same for v: [batch, size, kv_heads, value_dim]; asked for once.
  std::function<TensorView(Slice)> values = {};
  /// Whether query position q sees key position k. Called from several threads at once; must not throw.
  std::function<bool(Index q, Index k)> keeps = {};
  double scale = 1.0;         ///< multiplies q·k before the softmax
  Index block_tokens = 1024;  ///< keys asked for at a time; results do not depend on it but for rounding
};

/// out is [batch, rows, q_heads, value_dim]; lse, natural log, is [batch, q_heads, rows]; both dense. A row
/// that sees no key has out 0 and lse −inf.
struct OracleResult {
  DType dtype = DType::f32;
  Index batch = 0;
  Index rows = 0;
  Index q_heads = 0;
  Index value_dim = 0;
  std::vector<Index> q_positions = {};
  std::vector<double> out = {};  ///< in fp64 throughout: max, then weights, then sums; nothing is rescaled
  std::vector<double> lse = {};
  /// As an unfused implementation of the input's element type computes it: scores accumulated in fp32 and
  /// rounded to the type; softmax in fp32, rounded to the type; P·V accumulated in fp32 (block by block of
  /// keys), rounded to the type. Scores that the type can't hold stay fp32, so that no infinity of the plain
  /// implementation widens a tolerance. Its lse is of the unrounded fp32 scores.
  std::vector<float> plain_out = {};
  std::vector<float> plain_lse = {};
  /// Largest scale · Σ|q_i·k_i| of a kept pair: what the scores' rounding is relative to.
  double score_magnitude = 0.0;
};

/// Computes the rows; parallel over (batch, row, head) with OpenMP.
/// @throws std::invalid_argument if a view or the positions do not have the shape that the input says
[[nodiscard]] OracleResult compute_oracle(OracleInput const& input);

/// The largest error that passes: value = 2 · plain_error + 2 · unit.
struct Tolerance {
  double plain_error = 0.0;  ///< max |plain − oracle|, of those elements where it is finite
  double unit = 0.0;         ///< a rounding unit, half an ulp, at the largest magnitude
  [[nodiscard]] double value() const { return 2.0 * plain_error + 2.0 * unit; }
};

/// Half the distance from |magnitude| to the next larger number of the type.
[[nodiscard]] double rounding_unit(DType type, double magnitude);

/// For out: the unit is out's element type's, at max |oracle|.
[[nodiscard]] Tolerance out_tolerance(OracleResult const& oracle);
/// For lse: the unit is fp32's, at the larger of max |oracle lse| and the score magnitude (an lse near zero
/// is the difference of numbers that are not).
[[nodiscard]] Tolerance lse_tolerance(OracleResult const& oracle);

/// The worst element. A NaN on either side, or an infinity against another value, is an infinite error; equal
/// infinities (−inf for a row that sees no key) are none.
struct Difference {
  double max_abs_error = 0.0;
  Index batch = 0;
  Index q_position = 0;
  Index head = 0;
  Index dim = 0;  ///< 0 for lse
  double value = 0.0;
  double expected = 0.0;
};

/// @param out  [batch, rows, q_heads, value_dim], the oracle's rows, of any element type
/// @throws std::invalid_argument on another shape
[[nodiscard]] Difference compare_out(OracleResult const& oracle, TensorView out);
/// @param lse  [batch, q_heads, rows], dense
[[nodiscard]] Difference compare_lse(OracleResult const& oracle, std::span<float const> lse);

/// "0.5 instead of 0.25 at batch 0, query 3, head 1, dim 7": for messages.
[[nodiscard]] std::string describe(Difference const& difference);

}  // namespace plait
