// How a row is finished, for every kernel that finishes rows: the same bits wherever it happens.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace plait::cuda {

inline constexpr double ln2 = 0.693147180559945309417232121458;

/// ln 2 · (m + log2 l) for l > 0. m and log2 l may cancel: l = 2^e · f with f near 1, so that log2 f is small
/// and its error too, and the sum is taken in double.
__device__ inline float natural_lse(float m, float l) {
  int exponent = 0;
  float fraction = frexpf(l, &exponent);
  if (fraction < 0.70710678f) {
    fraction *= 2.0f;
    exponent -= 1;
  }
  double const sum =
      static_cast<double>(m) + static_cast<double>(exponent) + static_cast<double>(log2f(fraction));
  return static_cast<float>(ln2 * sum);
}

/// An element of O as output: O / l to one unit in the last place, or 0 where the row saw no key, whatever O
/// is.
__device__ inline float finished(float o, float l, float reciprocal) {
  return l == 0.0f ? 0.0f : o * reciprocal;
}

/// Rounds an fp32 to the type, to nearest even.
template <class T>
__device__ T rounded_to(float value);
template <>
__device__ inline float rounded_to<float>(float value) {
  return value;
}
template <>
__device__ inline __half rounded_to<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 rounded_to<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

}  // namespace plait::cuda
