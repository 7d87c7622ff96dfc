// The way of a tile's rows between device memory and a warpgroup's registers: through shared memory, by TMA.
#pragma once

#include "shared.cuh"

namespace plait::cuda::hopper {

/// One thread for each consumer warpgroup. While the warpgroup computes a tile, the O that the tile carries
/// comes to shared memory; there the warpgroup leaves its new O, or its output, which goes away while the
/// next tile is computed. So the warpgroup meets neither device memory's latency nor its own scattered
/// stores.
template <class C>
class RowMover {
 public:
  __device__ __forceinline__ RowMover(FoldArgs const& args, Maps const& maps, int warpgroup)
      : args_(args), maps_(maps), warpgroup_(warpgroup) {}

  __device__ __forceinline__ void run() {
    for (;;) {
      barrier_wait_long(shared().rows_wanted[warpgroup_], turn_.parity());
      RowBox const box = shared().wanted[warpgroup_];
      if (box.row < 0) break;
      bring(box);
      barrier_wait_long(shared().rows_done[warpgroup_], turn_.parity());
      take_away(box);
      turn_.advance();
    }
    tma_store_wait();
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  __device__ __forceinline__ void bring(RowBox const& box) const {
    Barrier& full = shared().rows_full[warpgroup_];
    if (!args_.carried) return barrier_arrive(full);
    auto& o = shared().stage.o[warpgroup_];
    barrier_expect(full, sizeof o);
#pragma unroll 1
    for (int chunk = 0; chunk < C::state_chunks; ++chunk) {
      tma_load(&maps_.o, o[chunk], chunk * state_columns, box.row, box.plane(args_), full);
    }
  }

  __device__ __forceinline__ void take_away(RowBox const& box) const {
    if (args_.finishes) {
#pragma unroll 1
      for (int chunk = 0; chunk < C::value_dim / chunk_dims; ++chunk) {
        tma_store(&maps_.out, staged_output<C>(warpgroup_, chunk), chunk * chunk_dims, box.row, box.head,
                  box.batch);
      }
    } else {
#pragma unroll 1
      for (int chunk = 0; chunk < C::state_chunks; ++chunk) {
        tma_store(&maps_.o, shared().stage.o[warpgroup_][chunk], chunk * state_columns, box.row,
                  box.plane(args_));
      }
    }
    tma_store_read();
  }

  FoldArgs const& args_;
  Maps const& maps_;
  int warpgroup_;
  Ring<1> turn_;
};

}  // namespace plait::cuda::hopper
