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

// --- what is the same for the whole warp, which the compiler cannot see
// It matters: a descriptor that may differ between lanes costs two instructions more at each wgmma, and after
// a branch that lanes may take differently every descriptor is one.

__device__ __forceinline__ bool uniform(bool condition) {
  return __any_sync(0xffffffffu, condition) != 0;
}

/// What follows begins when `certain`, which holds, has been computed.
__device__ __forceinline__ void only_after(bool certain) {
  if (uniform(!certain)) asm volatile("trap;");
}

// --- mbarriers: a stage of shared memory is full, or empty again

using Barrier = std::uint64_t;

__device__ __forceinline__ void barrier_init(Barrier& barrier, int arrivals) {
  ::cuda::ptx::mbarrier_init(&barrier, static_cast<std::uint32_t>(arrivals));
}
__device__ __forceinline__ void barrier_arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
/// Arrivals of a warp that releases something. compute-sanitizer's racecheck does not follow one arrival for
/// the whole warp, and takes what the other lanes read for a race: for it all lanes arrive (PLAIT_RACECHECK).
#ifdef PLAIT_RACECHECK
constexpr int release_arrivals = 32;
#else
constexpr int release_arrivals = 1;
#endif
/// The warp arrives, when all of it is done with something.
__device__ __forceinline__ void release(Barrier& barrier) {
  __syncwarp();
  if constexpr (release_arrivals > 1) return barrier_arrive(barrier);
  asm volatile(
      "{\n"
      ".reg .pred one;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "@one mbarrier.arrive.shared::cta.b64 _, [%0];\n"
      "}" ::"r"(shared_address(&barrier))
      : "memory");
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

// --- clusters of two blocks

__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// The address of the other block's counterpart of something in this one's shared memory.
__device__ __forceinline__ std::uint32_t peer_address(void const* own) {
  std::uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(own)), "r"(cluster_rank() ^ 1u));
  return address;
}
/// Arrives at the other block's barrier, which may then overwrite what this thread has read. Its writes are
/// not ordered: a release for the cluster would cost two memory barriers.
__device__ __forceinline__ void barrier_arrive_peer(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(peer_address(&barrier)) : "memory");
}
/// Writes a value to the other block's shared memory; its four bytes count on that block's `full`.
__device__ __forceinline__ void send_to_peer(std::int32_t& to, std::int32_t value, Barrier& full) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                   peer_address(&to)),
               "r"(value), "r"(peer_address(&full))
               : "memory");
}
/// All threads of both blocks come together.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
/// The warp arrives, when all of it is done with something; if `peer`, at the other block's barrier too.
__device__ __forceinline__ void release(Barrier& barrier, bool peer) {
  __syncwarp();
  if constexpr (release_arrivals > 1) {
    barrier_arrive(barrier);
    if (peer) barrier_arrive_peer(barrier);
    return;
  }
  asm volatile(
      "{\n"
      ".reg .pred one, both;\n"
      ".reg .b32 there;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "setp.ne.and.u32 both, %2, 0, one;\n"
      "@one mbarrier.arrive.shared::cta.b64 _, [%0];\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "@both mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(&barrier)),
      "r"(cluster_rank() ^ 1u), "r"(static_cast<unsigned>(peer))
      : "memory");
}

// --- rings of stages

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

// --- named barriers among warps, each of whose lanes come together: after a branch they need __syncwarp
// first

__device__ __forceinline__ void named_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- launches of one stream that overlap

/// Returns when the launch before this one in its stream has ended, and what it wrote can be read.
__device__ __forceinline__ void await_earlier_launch() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
/// The next launch of the stream may begin where this one leaves room, once every block has said so or ended.
__device__ __forceinline__ void allow_next_launch() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
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

/// tma_load to the same place in both blocks of the cluster; the bytes count on each one's `full`.
__device__ __forceinline__ void tma_load_both(void const* map, void* to, int column, int row, int head,
                                              int batch, Barrier& full) {
  std::int32_t const at[4] = {column, row, head, batch};
  constexpr std::uint16_t both = 3;
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, to, map, at, &full,
                                    both);
}

/// Brings a box into the L2 cache.
__device__ __forceinline__ void tma_prefetch(void const* map, int column, int row, int head, int batch) {
  asm volatile("cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1, %2, %3, %4}];" ::"l"(map),
               "r"(column), "r"(row), "r"(head), "r"(batch)
               : "memory");
}

/// Copies `bytes`, a multiple of 16, into shared memory. The bytes count on `full`.
__device__ __forceinline__ void bulk_load(void const* from, void* to, int bytes, Barrier& full) {
  ::cuda::ptx::cp_async_bulk(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, to, from,
                             static_cast<std::uint32_t>(bytes), &full);
}
/// tma_load of a tensor of three dimensions, at (column, row, plane).
__device__ __forceinline__ void tma_load(void const* map, void* to, int column, int row, int plane,
                                         Barrier& full) {
  std::int32_t const at[3] = {column, row, plane};
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, to, map, at,
                                    &full);
}
/// Copies a box out of shared memory; what lies outside the tensor is not written. Belongs to this thread's
/// open group of copies.
__device__ __forceinline__ void tma_store(void const* map, void const* from, int column, int row, int plane) {
  std::int32_t const at[3] = {column, row, plane};
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_global, ::cuda::ptx::space_shared, map, at, from);
}
__device__ __forceinline__ void tma_store(void const* map, void const* from, int column, int row, int head,
                                          int batch) {
  std::int32_t const at[4] = {column, row, head, batch};
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_global, ::cuda::ptx::space_shared, map, at, from);
}
/// Closes the group and waits until its copies have read shared memory.
__device__ __forceinline__ void tma_store_read() {
  ::cuda::ptx::cp_async_bulk_commit_group();
  ::cuda::ptx::cp_async_bulk_wait_group_read(::cuda::ptx::n32_t<0>{});
}
/// Waits until all of this thread's stores are done.
__device__ __forceinline__ void tma_store_wait() {
  ::cuda::ptx::cp_async_bulk_wait_group(::cuda::ptx::n32_t<0>{});
}

/// Where the 16-byte unit `unit` of row `row` of a box lies, in units: rows of 128 bytes whose units are
/// exchanged by the row's number (PTX ISA, "Swizzling modes", 128B).
__device__ __forceinline__ constexpr unsigned swizzled_unit(unsigned row, unsigned unit) {
  return row * 8 + (unit ^ row % 8);
}

/// Stores four 8×8 matrices of two-byte elements: lane l gives the address of row l % 8 of matrix l / 8, and
/// holds in each word the pair of columns 2·(l % 4) of row l / 4.
__device__ __forceinline__ void store_matrices(void* row, std::uint32_t const (&words)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
               "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
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
/// A descriptor that is read here: what is computed from it then takes no registers through the loop around.
__device__ __forceinline__ std::uint64_t here(std::uint64_t descriptor) {
  asm volatile("" : "+l"(descriptor));
  return descriptor;
}
/// How far a descriptor moves for `bytes`.
__device__ __forceinline__ constexpr std::uint64_t descriptor_step(int bytes) {
  return static_cast<std::uint64_t>(bytes) >> 4;
}

/// d (64×N) = a·bᵀ over Dim columns. a and b: tiles whose chunks have RowsA and RowsB rows, from the 64 and
/// the N rows on that they point at.
template <class Element, int N, int Dim, int RowsA, int RowsB = N>
__device__ __forceinline__ void multiply_transposed(float (&d)[N / 2], std::uint64_t a, std::uint64_t b) {
#pragma unroll
  for (int k = 0; k < Dim / 16; ++k) {
    constexpr int steps = chunk_dims / 16;
    std::uint64_t const within = descriptor_step(k % steps * 32);
    wgmma_ss<Element, N>(d, a + descriptor_step(k / steps * RowsA * 128) + within,
                         b + descriptor_step(k / steps * RowsB * 128) + within, k == 0 ? 0 : 1);
  }
}

/// d (64×N) += p·b over the first Rows rows of b. p: columns in registers; b: a tile of rows of N columns.
template <class Element, int N, int Rows, int Words>
__device__ __forceinline__ void multiply_add(float (&d)[N / 2], std::uint32_t const (&p)[Words],
                                             std::uint64_t b) {
  static_assert(Rows <= 4 * Words);
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
