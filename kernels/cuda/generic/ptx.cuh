// The instructions that the generic kernels are built of: asynchronous copies, matrix loads, the tensor core.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace plait::cuda {

__device__ inline std::uint32_t shared_address(void const* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Copies the first `bytes` of `width` to shared memory and fills the rest with zeros; with 0 bytes nothing
/// is read.
template <int width>
__device__ inline void copy_async(std::uint32_t target, void const* source, int bytes) {
  static_assert(width == 4 || width == 16);
  if constexpr (width == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(source), "r"(bytes)
                 : "memory");
  }
}

/// Waits for all copies of this thread. Those of others are visible after a barrier.
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ inline void store_shared(std::uint32_t target, uint4 value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}

/// Four 8×8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(std::uint32_t (&matrix)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&matrix)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(address)
               : "memory");
}

/// 2^x to within 2 units in the last place; results below 2^−126 are 0.
__device__ inline float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 2^x for x not far above 0, to about half a unit in the last place; results below 2^−126 are 0, NaN stays.
__device__ inline float exp2_exact(float x) {
  float const clamped = x < -126.0f ? -126.0f : x;
  float const rounded = rintf(clamped);
  float const f = clamped - rounded;  // in [−0.5, 0.5]
  // Taylor coefficients (ln 2)^k / k!; the remainder after f^7 is below 6e−9.
  float p = 1.52527338e-5f;
  p = fmaf(p, f, 1.54035304e-4f);
  p = fmaf(p, f, 1.33335581e-3f);
  p = fmaf(p, f, 9.61812911e-3f);
  p = fmaf(p, f, 5.55041087e-2f);
  p = fmaf(p, f, 2.40226507e-1f);
  p = fmaf(p, f, 6.93147181e-1f);
  p = fmaf(p, f, 1.0f);
  float const scaled = __int_as_float(__float_as_int(p) + (__float2int_rn(rounded) << 23));
  return x < -126.0f ? 0.0f : scaled;
}

/// The 16-bit types: pairs of them in a register, and products of 16×16 by 16×8 with fp32 sums.
template <class T>
struct Half;

template <>
struct Half<__half> {
  __device__ static std::uint32_t pack(float low, float high) {
    __half2 const pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<std::uint32_t const*>(&pair);
  }
  __device__ static void multiply(float (&c)[4], std::uint32_t const (&a)[4], std::uint32_t b0,
                                  std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

template <>
struct Half<__nv_bfloat16> {
  __device__ static std::uint32_t pack(float low, float high) {
    __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<std::uint32_t const*>(&pair);
  }
  __device__ static void multiply(float (&c)[4], std::uint32_t const (&a)[4], std::uint32_t b0,
                                  std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

}  // namespace plait::cuda
