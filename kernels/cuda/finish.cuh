// How a row is finished, for every kernel that finishes rows: the same bits wherever it happens.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <limits>

#include "plait/dtype.hpp"

namespace plait::cuda {

inline constexpr double ln2 = 0.693147180559945309417232121458;

/// ln 2 · (m + log2 l); −inf where l is 0, that is where the row saw no key. m and log2 l may cancel:
/// l = 2^e · f with f near 1, so that log2 f is small and its error too, and the sum is taken in double.
__device__ inline float natural_lse(float m, float l) {
  if (l == 0.0f) return -std::numeric_limits<float>::infinity();
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

/// Writes a finished row's lse, if it is asked for. @param to  an Output or FoldArgs
template <class To>
__device__ __forceinline__ void write_lse(To const& to, std::int64_t b, std::int64_t head, std::int64_t row,
                                          float m, float l) {
  if (to.lse == nullptr) return;
  to.lse[b * to.lse_batch_stride + head * to.lse_head_stride + row * to.lse_row_stride] = natural_lse(m, l);
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

/// `act(T{})`, where T is what a GPU calls the type.
template <class Act>
void with_type(DType type, Act const& act) {
  switch (type) {
    case DType::f32:
      return act(float{});
    case DType::f16:
      return act(__half{});
    case DType::bf16:
      return act(__nv_bfloat16{});
  }
}

/// Columns of a row that a thread owns side by side, moved at once.
template <class T, int width>
struct alignas(sizeof(T) * width) Columns {
  T value[width];
};

inline bool is_aligned(void const* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

/// Whether `width` columns of each of a tensor's rows can be moved at once, from its first one on.
/// @param tensor  a TensorView or TensorArg
template <class Tensor>
bool moves_columns(Tensor const& tensor, std::size_t element_bytes, int width) {
  return is_aligned(tensor.data, element_bytes * static_cast<std::size_t>(width)) &&
         tensor.batch_stride % width == 0 && tensor.row_stride % width == 0 &&
         tensor.head_stride % width == 0;
}

}  // namespace plait::cuda
