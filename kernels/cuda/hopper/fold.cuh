// The Hopper fold: one producer thread feeds K and V by TMA through two rings of stages; each consumer
// warpgroup owns 64 query rows and keeps their state in registers.
//
// The structure is FlashAttention-3's (Shah et al. 2024): the product Q·Kᵀ of one key block runs while the
// softmax of the one before is computed and P·V of it is added (overlap inside a warpgroup), and named
// barriers let one warpgroup multiply while another computes weights. Ours: bands through segments, the state
// carried in and out (through shared memory where it fits, by threads that do nothing else), and rescaling
// only when a row's maximum has grown by more than 2^8.
#pragma once

#include "consumer.cuh"
#include "producer.cuh"
#include "row_mover.cuh"

namespace plait::cuda::hopper {

template <class C>
__device__ __forceinline__ void init_barriers(Shared<C>& shared, bool shares_keys) {
  constexpr int releases_of_one = 4 * release_arrivals;  // by the warps of a warpgroup
  constexpr int releases = C::warpgroups * releases_of_one;
  int const key_releases = shares_keys ? 2 * releases : releases;
  for (int warpgroup = 0; warpgroup < C::warpgroups; ++warpgroup) {
    barrier_init(shared.q_full[warpgroup], 1);
    barrier_init(shared.q_empty[warpgroup], releases_of_one);
    barrier_init(shared.rows_full[warpgroup], release_arrivals);
  }
  for (int stage = 0; stage < C::stages; ++stage) {
    barrier_init(shared.k_full[stage], 1);
    barrier_init(shared.k_empty[stage], key_releases);
    barrier_init(shared.v_full[stage], 1);
    barrier_init(shared.v_empty[stage], key_releases);
    barrier_init(shared.work_full[stage], 1);
    barrier_init(shared.work_empty[stage], releases);
  }
  if constexpr (C::may_share_keys) {
    barrier_init(shared.item_full, 1);
    barrier_init(shared.item_empty, 1);
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

template <class C>
__global__ void __launch_bounds__(C::threads, 1)
    fold_kernel(__grid_constant__ FoldArgs const args, __grid_constant__ Maps const maps) {
  bool const shares = shares_keys<C>(args);
  if (threadIdx.x == 0) init_barriers(shared_memory<C>(), shares);
  __syncthreads();
  if (shares) cluster_sync();
  if (threadIdx.x < warpgroup_threads) {
    give_registers<C::producer_registers>();
    int const warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x == 0) Producer<C>(args, maps).run();
    if constexpr (C::stages_rows) {
      bool const moves = maps.moves_rows && warp > 0 && warp <= C::warpgroups;
      if (moves) RowMover<C>(args, maps, warp - 1).run();
    }
  } else {
    take_registers<C::consumer_registers>();
    Consumer<C>(args, maps.moves_rows).run();
  }
  if (shares) cluster_sync();  // until then the other block may write here
}

}  // namespace plait::cuda::hopper
