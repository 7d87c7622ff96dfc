// The way of a tile's rows between device memory and a warpgroup's registers: through shared memory, by TMA.
#pragma once

#include "shared.cuh"

namespace plait::cuda::hopper {

/// One warp for each consumer warpgroup. While the warpgroup computes a tile, the O that the tile carries
/// comes to shared memory; there the warpgroup leaves its new O, or its output, which goes away while the
/// next tile is computed. So the warpgroup meets neither device memory's latency nor its own scattered
/// stores.
template <class C>
class RowMover {
 public:
  __device__ __forceinline__ RowMover(FoldArgs const& args, Maps const& maps, int warpgroup)
      : args_(args), maps_(maps), warpgroup_(warpgroup) {}

  __device__ __forceinline__ void run() {
    await_earlier_launch();
    allow_next_launch();
    for (;;) {
      named_sync(NamedBarrier<C>::rows_wanted + warpgroup_, NamedBarrier<C>::row_threads);
      RowBox const box = shared().wanted[warpgroup_];
      if (box.row < 0) break;
      bring(box);
      named_sync(NamedBarrier<C>::rows_done + warpgroup_, NamedBarrier<C>::row_threads);
      take_away(box);
    }
    if (lane() == 0) tma_store_wait();
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }

  __device__ __forceinline__ void bring(RowBox const& box) const {
    Barrier& full = shared().rows_full[warpgroup_];
    if (args_.carried) {
      for_each_row(box, [&](int row, RowSums& sums, int at) {
        std::int64_t const place = state_row(args_, box.batch, box.head, row);
        sums.m[at] = row < args_.state_rows ? args_.m[place] : minus_infinity;
        sums.l[at] = row < args_.state_rows ? args_.l[place] : 0.0f;
      });
    }
    __syncwarp();
    if (lane() == 0 && args_.carried) {
      bring_values(box, full);
    } else if (lane() < release_arrivals) {
      barrier_arrive(full);
    }
    __syncwarp();
  }
  __device__ __forceinline__ void bring_values(RowBox const& box, Barrier& full) const {
    auto& o = shared().stage.o[warpgroup_];
    barrier_expect(full, sizeof o);
#pragma unroll 1
    for (int chunk = 0; chunk < C::state_chunks; ++chunk) {
      tma_load(&maps_.o, o[chunk], chunk * state_columns, box.row, box.plane(args_), full);
    }
  }

  __device__ __forceinline__ void take_away(RowBox const& box) const {
    if (lane() == 0) send_values(box);
    __syncwarp();
    for_each_row(box, [&](int row, RowSums const& sums, int at) {
      if (row >= args_.state_rows) return;
      if (args_.finishes) {
        write_lse(args_, box.batch, box.head, row, sums.m[at], sums.l[at]);
      } else {
        std::int64_t const place = state_row(args_, box.batch, box.head, row);
        args_.m[place] = sums.m[at];
        args_.l[place] = sums.l[at];
      }
    });
    if (lane() == 0) tma_store_read();
    __syncwarp();
  }
  __device__ __forceinline__ void send_values(RowBox const& box) const {
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
  }
  /// Calls `use(row, sums, the row's place among the sums)` for each of this lane's rows.
  template <class Use>
  __device__ __forceinline__ void for_each_row(RowBox const& box, Use&& use) const {
#pragma unroll 1
    for (int at = lane(); at < 64; at += 32) use(box.row + at, shared().sums[warpgroup_], at);
  }

  FoldArgs const& args_;
  Maps const& maps_;
  int warpgroup_;
};

}  // namespace plait::cuda::hopper
