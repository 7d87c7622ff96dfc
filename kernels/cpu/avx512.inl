// What the AVX-512 paths share: vectors of sixteen floats. Needs F, DQ and <immintrin.h>.

using Vector = __m512;
constexpr Index lanes = 16;
constexpr int registers = 32;

// The forms with a mask: GCC 12 warns of the others that its own headers read an undefined value.
constexpr __mmask16 all_lanes = 0xffff;

inline Vector splat(float value) {
  return _mm512_set1_ps(value);
}

inline Vector larger(Vector a, Vector b) {
  return _mm512_maskz_max_ps(all_lanes, a, b);
}

/// Whether no lane is above the limit, or NaN.
inline bool all_within(Vector values, float limit) {
  return _mm512_cmp_ps_mask(values, splat(limit), _CMP_NLE_UQ) == 0;
}

inline Vector load_half(std::uint16_t const* from) {
  return _mm512_maskz_cvtph_ps(all_lanes, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
}

/// polynomial(x − ⌊x⌋) · 2^⌊x⌋: 0 for −inf, whose fraction VREDUCEPS defines as 0.
template <class Polynomial>
inline Vector power_of_two(Vector x, Polynomial polynomial) {
  constexpr int floor = 1;
  return _mm512_maskz_scalef_ps(all_lanes, polynomial(_mm512_maskz_reduce_ps(all_lanes, x, floor)), x);
}

#include "vector.inl"
