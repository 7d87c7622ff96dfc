// Scores to weights, on the rows and columns that one thread holds of a warpgroup's accumulators.
#pragma once

#include "shared.cuh"

namespace plait::cuda::hopper {

/// A row's reference exponent follows its maximum only when that has grown by more than this: weights stay
/// below 2^8, and most blocks leave O as it is.
constexpr float lazy_exponents = 8.0f;

/// This thread's share of 64 query rows: two rows, and of each the columns of its quad position.
template <class C>
struct Rows {
  static constexpr int score_count = C::key_block / 2;
  static constexpr int value_count = C::value_dim / 2;

  float o[value_count];
  std::uint32_t p[C::key_block / 4];
  float m[2];
  float l[2];  ///< of this thread's columns
};

/// m and l of this thread's two rows; at first, those of rows that have seen nothing.
struct Sums {
  float m[2] = {minus_infinity, minus_infinity};
  float l[2] = {};
};

/// A row's keys [begin, end) of a block, counted from this thread's first column, as one bit for each of the
/// thread's columns 8·j and 8·j + 1, j < 16.
__device__ __forceinline__ std::uint32_t seen_columns(int begin, int end) {
  auto const bits_below = [](int column) {
    int const count = column / 8 * 2 + min(column % 8, 2);
    return static_cast<std::uint32_t>((1ull << count) - 1);
  };
  return bits_below(min(max(end, 0), 128)) & ~bits_below(min(max(begin, 0), 128));
}

/// Which of a thread's scores of a key block are seen, as bits.
template <class C>
struct Seen {
  static constexpr int words = (C::key_block / 8 + 15) / 16;
  std::uint32_t columns[2][words];
};

/// `row` is this thread's first row, `first` its first column's key.
template <class C>
__device__ __forceinline__ void find_seen(Seen<C>& seen, Segment const& segment, int row, int first) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int const r = row + 8 * i;
    bool const inside = segment.row_begin <= r && r < segment.row_end;
    int const begin = max(segment.begin, r + segment.lo) - first;
    int const end = inside ? min(segment.end, r + segment.hi + 1) - first : begin;
#pragma unroll
    for (int word = 0; word < Seen<C>::words; ++word) {
      seen.columns[i][word] = seen_columns(begin - 128 * word, end - 128 * word);
    }
  }
}

/// Scores of unseen keys become −inf.
template <class C, int Count>
__device__ __forceinline__ void hide_unseen(float (&s)[Count], Seen<C> const& seen) {
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    int const column = e / 4;
    bool const sees = (seen.columns[e / 2 % 2][column / 16] >> (column % 16 * 2 + e % 2) & 1u) != 0;
    s[e] = sees ? s[e] : minus_infinity;
  }
}

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/// Scores become weights 2^(scale·s − m); m follows the maxima lazily. @returns whether O is to be multiplied
/// by `rescale`, which is the same for the whole warp
template <bool Masked, int Count>
__device__ __forceinline__ bool weigh(float (&s)[Count], float (&m)[2], float (&l)[2], float (&rescale)[2],
                                      float scale) {
  float high[2] = {s[0], s[2]};
#pragma unroll
  for (int e = 0; e < Count; ++e) high[e / 2 % 2] = fmaxf(high[e / 2 % 2], s[e]);
  bool grows = false;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    high[i] = fmaxf(m[i], quad_max(high[i]) * scale);
    grows = grows || high[i] > m[i] + lazy_exponents;
  }
  bool const rescales = __any_sync(0xffffffffu, grows);
  if (rescales) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // A row that has seen nothing yet stays at −inf; −inf − (−inf) is not formed.
      bool const empty = Masked && high[i] == minus_infinity;
      rescale[i] = empty ? 1.0f : fast_exp2(m[i] - high[i]);
      m[i] = high[i];
      l[i] *= rescale[i];
    }
  }
  float base[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) base[i] = Masked && m[i] == minus_infinity ? 0.0f : m[i];
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    s[e] = fast_exp2(fmaf(s[e], scale, -base[e / 2 % 2]));
    sum[e / 2 % 2] += s[e];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) l[i] += sum[i];
  return rescales;
}

template <class C>
__device__ __forceinline__ void scale_values(Rows<C>& rows, float const (&factors)[2]) {
#pragma unroll
  for (int e = 0; e < Rows<C>::value_count; ++e) rows.o[e] *= factors[e / 2 % 2];
}

/// The first weights of a block become the operand of the product with its values.
template <class C, int Count>
__device__ __forceinline__ void round_weights(float const (&s)[Count], Rows<C>& rows) {
#pragma unroll
  for (int e = 0; e < Count / 2; ++e) rows.p[e] = pack<typename C::Element>(s[2 * e], s[2 * e + 1]);
}

}  // namespace plait::cuda::hopper
