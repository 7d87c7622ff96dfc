// The tile layer: what the Hopper kernels need of PTX beyond wgmma. Each primitive has a test on the GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda/ptx>

#include <cstdint>

#include "wgmma.cuh"

namespace plait::cuda::hopper {

constexpr int warpgroup_threads = 128;
/// Elements of two bytes in a row of a tile: 128 bytes, the widest swizzle.
constexpr int chunk_dims = 64;

__device__ __forceinline__ std::uint32_t shared_address(void const* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- mbarriers: a stage of shared memory is full, or empty again

using Barrier = std::uint64_t;

__device__ __forceinline__ void barrier_init(Barrier& barrier, int arrivals) {
  ::cuda::ptx::mbarrier_init(&barrier, static_cast<std::uint32_t>(arrivals));
}
__device__ __forceinline__ void barrier_arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
/// Arrives, and lets the phase wait for so many bytes of TMA copies.
__device__ __forceinline__ void barrier_expect(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}
/// Returns when the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(Barrier& barrier, int parity) {
  while (!::cuda::ptx::mbarrier_try_wait_parity(&barrier, static_cast<std::uint32_t>(parity))) {
  }
}

/// A position in a ring of stages, which are a power of two, with the parity of its barriers' phase.
template <int Stages>
class Ring {
 public:
  __device__ __forceinline__ void advance() { ++count_; }
  /// Where this ring was so many stages ago.
  [[nodiscard]] __device__ __forceinline__ Ring back(unsigned stages) const {
    Ring before = *this;
    before.count_ -= stages;
    return before;
  }
  [[nodiscard]] __device__ __forceinline__ unsigned stage() const { return count_ % Stages; }
  [[nodiscard]] __device__ __forceinline__ int parity() const {
    return static_cast<int>(count_ / Stages % 2);
  }

 private:
  static_assert((Stages & (Stages - 1)) == 0);
  unsigned count_ = 0;
};

// --- named barriers among warps

__device__ __forceinline__ void named_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- registers between warpgroups

template <int Registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// --- tiles in shared memory: chunks of 64 columns, each [rows][64] of two bytes, swizzled over 128 bytes

/// Copies the box at (column, row, head, batch) of a tensor into shared memory; what lies outside the tensor
/// becomes zero. The bytes count on `full`.
__device__ __forceinline__ void tma_load(void const* map, void* to, int column, int row, int head, int batch,
                                         Barrier& full) {
  std::int32_t const at[4] = {column, row, head, batch};
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, to, map, at,
                                    &full);
}

/// The matrix descriptor of a swizzled tile (PTX ISA, "Matrix descriptor"). `leading` is the distance in
/// bytes of chunks for an N-major operand, and unused for a K-major one; groups of 8 rows are 1,024 bytes
/// apart.
__device__ __forceinline__ std::uint64_t descriptor(void const* tile, int leading) {
  constexpr std::uint64_t swizzle_128_bytes = 1ull << 62;
  constexpr std::uint64_t row_groups = (1024ull >> 4) << 32;
  std::uint64_t const address = (shared_address(tile) & 0x3ffffu) >> 4;
  return address | (static_cast<std::uint64_t>(leading) >> 4) << 16 | row_groups | swizzle_128_bytes;
}
/// How far a descriptor moves for `bytes`.
__device__ __forceinline__ constexpr std::uint64_t descriptor_step(int bytes) {
  return static_cast<std::uint64_t>(bytes) >> 4;
}

/// d (64×N) = a·bᵀ over Dim columns. a: a tile whose chunks have RowsA rows, from the 64 rows that `a` points
/// at; b: a tile of N rows.
template <class Element, int N, int Dim, int RowsA>
__device__ __forceinline__ void multiply_transposed(float (&d)[N / 2], std::uint64_t a, std::uint64_t b) {
#pragma unroll
  for (int k = 0; k < Dim / 16; ++k) {
    constexpr int steps = chunk_dims / 16;
    std::uint64_t const within = descriptor_step(k % steps * 32);
    wgmma_ss<Element, N>(d, a + descriptor_step(k / steps * RowsA * 128) + within,
                         b + descriptor_step(k / steps * N * 128) + within, k == 0 ? 0 : 1);
  }
}

/// d (64×N) += p·b over Rows rows of b. p: Rows columns in registers; b: a tile of Rows rows and N columns.
template <class Element, int N, int Rows>
__device__ __forceinline__ void multiply_add(float (&d)[N / 2], std::uint32_t const (&p)[Rows / 4],
                                             std::uint64_t b) {
#pragma unroll
  for (int k = 0; k < Rows / 16; ++k) {
    std::uint32_t const a[4] = {p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3]};
    wgmma_rs<Element, N>(d, a, b + descriptor_step(k * 16 * 128));
  }
}

// --- numbers

/// 2^x to 2 ulp; results below 2^−126 become 0.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two fp32 rounded to a pair, the first in the lower half.
template <class Element>
__device__ __forceinline__ std::uint32_t pack(float first, float second) {
  std::uint32_t pair;
  if constexpr (std::is_same_v<Element, __half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  }
  return pair;
}

}  // namespace plait::cuda::hopper
