// The state (m, l, O) of a block of query rows, and the one merge that the whole program uses.
//
// Weight of key j is 2^(s_j − m), s_j = scale · log2(e) · q·k_j; l is the sum of weights, O the unnormalised
// weighted sum of values. Output = O / l, lse = ln 2 · (m + log2 l). m is a reference exponent, not
// necessarily the maximum. Identity: (−inf, 0, 0).
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

#include "plait/slice.hpp"

#ifdef __CUDACC__
#define PLAIT_HOST_DEVICE __host__ __device__
#else
#define PLAIT_HOST_DEVICE
#endif

namespace plait {

/// fp32 state of `rows` query rows: m and l are [batch, heads, rows], O is [batch, heads, rows, value_dim],
/// each dense. `heads` counts query heads.
struct StateView {
  float* m = nullptr;
  float* l = nullptr;
  float* o = nullptr;
  Index batch = 0;
  Index heads = 0;
  Index rows = 0;
  Index value_dim = 0;
};

/// Bytes of a state that lies as m, then l, then O in one piece of memory.
[[nodiscard]] constexpr std::size_t state_bytes(Index batch, Index heads, Index rows, Index value_dim) {
  return static_cast<std::size_t>(batch * heads * rows * (value_dim + 2)) * sizeof(float);
}

/// Views one piece of memory of `state_bytes` as a state.
[[nodiscard]] inline StateView state_view(void* memory, Index batch, Index heads, Index rows,
                                          Index value_dim) {
  auto* const m = static_cast<float*>(memory);
  Index const count = batch * heads * rows;
  return {m, m + count, m + 2 * count, batch, heads, rows, value_dim};
}

/// How two states of one row become one. The row with the larger m ("high") keeps its weights, the other is
/// scaled by `low_weight` = 2^(m_low − m_high) ≤ 1:
///   m = m_high, l = l_high + low_weight · l_low, O = O_high + low_weight · O_low.
/// Choosing by m, not by side, makes the merge commute bit for bit, under fused multiply-add too.
struct RowMerge {
  float m;
  float low_weight;
  bool right_is_high;
  bool keeps_high_only;  ///< the low side is the identity: the high side passes bit for bit

  [[nodiscard]] PLAIT_HOST_DEVICE float operator()(float left, float right) const {
    float const high = right_is_high ? right : left;
    float const low = right_is_high ? left : right;
    return keeps_high_only ? high : std::fma(low, low_weight, high);
  }
};

/// The merge of rows with references `left_m` and `right_m`; apply the result to l and to each element of O.
/// No NaN arises from −inf − (−inf): with an identity on either side no difference is formed. Two rows of
/// −inf are added as they are: both are the identity, unless all scores of one were NaN, which then shows in
/// l.
[[nodiscard]] PLAIT_HOST_DEVICE inline RowMerge merge_rows(float left_m, float right_m) {
  bool const right_is_high = right_m > left_m;
  float const high = right_is_high ? right_m : left_m;
  float const low = right_is_high ? left_m : right_m;
  constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
  if (high == minus_infinity) return {high, 1.0f, right_is_high, false};
  bool const low_is_identity = low == minus_infinity;
  return {high, low_is_identity ? 0.0f : std::exp2(low - high), right_is_high, low_is_identity};
}

}  // namespace plait
