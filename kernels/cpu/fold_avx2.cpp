// The blocked fold for AVX2, FMA and F16C. Compiled with flags of its own: nothing here may be inline and
// shared with other files, or the linker could pick this file's copy for processors that lack the
// instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

using Vector = __m256;
constexpr Index lanes = 8;
constexpr int registers = 16;
constexpr Index block_rows = 6;
constexpr Index word_elements = 1;

inline Vector splat(float value) {
  return _mm256_set1_ps(value);
}

inline Vector larger(Vector a, Vector b) {
  return _mm256_max_ps(a, b);
}

inline Vector load_half(std::uint16_t const* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
}

/// polynomial(x − ⌊x⌋) · 2^⌊x⌋; 0 below 2^−126.
template <class Polynomial>
inline Vector power_of_two(Vector x, Polynomial polynomial) {
  Vector const lowest = _mm256_set1_ps(-126.0f);
  Vector const clamped = _mm256_max_ps(lowest, x);  // a NaN passes
  Vector const whole = _mm256_floor_ps(clamped);
  __m256i const exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
  __m256i const power = _mm256_add_epi32(_mm256_castps_si256(polynomial(clamped - whole)), exponent);
  return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_LT_OQ), _mm256_castsi256_ps(power));
}

inline Vector multiply_add(Vector sum, Vector a, Vector b) {
  return sum + a * b;
}

#include "vector.inl"

inline void store_weights(float* row, Index column, Vector weights) {
  store_vector(row + column, weights);
}

#include "fma.inl"
#include "fold_few.inl"
#include "fold_vector.inl"

}  // namespace

FoldPath avx2_path() {
  return {fold_packed, fold_few, group_rows, [](Index head_dim, Index value_dim) {
            return std::max(scratch_floats(head_dim, value_dim), few_scratch_floats(head_dim, value_dim));
          }};
}

}  // namespace plait::cpu
