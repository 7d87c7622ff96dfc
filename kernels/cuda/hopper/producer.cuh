// The producer of the Hopper fold: one thread that finds work and feeds Q, K and V by TMA.
#pragma once

#include "shared.cuh"

namespace plait::cuda::hopper {

/// The `item`-th piece of work. Heads go in groups whose keys and values fit in L2 together; in a group the
/// longest tiles of all heads come first.
__device__ __forceinline__ void find(FoldArgs const& args, int item, Work& work) {
  int const lanes = args.batch * args.q_heads;
  int const per_group = args.tile_count * args.heads_at_once;
  int const first = item / per_group * args.heads_at_once;
  int const width = min(args.heads_at_once, lanes - first);
  int const lane = first + item % per_group % width;
  work.tile = args.tiles[item % per_group / width];
  work.head = lane % args.q_heads;
  work.kv_head = work.head / args.group;
  work.batch = lane / args.q_heads;
  if (work.tile.segment_begin != work.tile.segment_end) work.first = args.segments[work.tile.segment_begin];
}

template <class C>
class Producer {
 public:
  __device__ __forceinline__ Producer(FoldArgs const& args, Maps const& maps) : args_(args), maps_(maps) {}

  __device__ __forceinline__ void run() {
    int item = static_cast<int>(blockIdx.x);
    for (bool first = true;; first = false) {
      // A tile is handed over when the one before it has begun, so that finding it costs no time, and its
      // state has come nearer when it is needed.
      bool const more = hand_over(item);
      if (!first) load_rest(shared().work[work_.back(2).stage()]);
      if (!more) break;
      item = static_cast<int>(gridDim.x) + atomicAdd(args_.next_item, 1);
      load_first(shared().work[work_.back(1).stage()]);
    }
    // The last block to run out of work leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(args_.finished_ctas, 1) == static_cast<int>(gridDim.x) - 1) {
      *args_.next_item = 0;
      *args_.finished_ctas = 0;
    }
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  /// Gives the consumers an item, or the end. @returns whether there was one
  __device__ __forceinline__ bool hand_over(int item) {
    bool const exists = item < args_.tile_count * args_.batch * args_.q_heads;
    barrier_wait(shared().work_empty[work_.stage()], work_.parity() ^ 1);
    Work& work = shared().work[work_.stage()];
    if (exists) {
      find(args_, item, work);
      if (args_.carried) prefetch_state(work);
    } else {
      work.tile.row_begin = -1;
    }
    barrier_arrive(shared().work_full[work_.stage()]);
    work_.advance();
    return exists;
  }

  /// The first key block and the query tile.
  __device__ __forceinline__ void load_first(Work const& work) {
    if (work.tile.segment_begin == work.tile.segment_end) return;
    load_k(work, work.first.begin);
    load_q(work);
  }

  /// The other blocks of the tile, K one block ahead of V.
  __device__ __forceinline__ void load_rest(Work const& work) {
    if (work.tile.segment_begin == work.tile.segment_end) return;
    int previous_key = work.first.begin;
    int key = previous_key + C::key_block;
    int left = work.first.blocks - 1;
    for (int at = work.tile.segment_begin;;) {
      for (; left > 0; --left) {
        load_k(work, key);
        load_v(work, previous_key);
        previous_key = key;
        key += C::key_block;
      }
      if (++at == work.tile.segment_end) break;
      key = args_.segments[at].begin;
      left = args_.segments[at].blocks;
    }
    load_v(work, previous_key);
  }

  /// Brings the tile's state into the L2 cache, so that the consumers do not wait for the device's memory.
  __device__ __forceinline__ void prefetch_state(Work const& work) const {
    std::int64_t const at = state_row(args_, work, work.tile.row_begin);
    int const rows = work.tile.row_end - work.tile.row_begin;
    prefetch(args_.o + at * args_.value_dim, rows * args_.value_dim);
    prefetch(args_.m + at, rows);
    prefetch(args_.l + at, rows);
  }
  static __device__ __forceinline__ void prefetch(float const* data, int count) {
    if (reinterpret_cast<std::uintptr_t>(data) % 16 != 0 || count % 4 != 0) return;  // the instruction's unit
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(data), "r"(count * 4) : "memory");
  }

  __device__ __forceinline__ void load_q(Work const& work) {
    barrier_wait(shared().q_empty, q_.parity() ^ 1);
    q_.advance();
    barrier_expect(shared().q_full, sizeof shared().q);
#pragma unroll 1
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.q, shared().q[chunk], chunk * chunk_dims, work.tile.row_begin, work.head, work.batch,
               shared().q_full);
    }
  }
  __device__ __forceinline__ void load_k(Work const& work, int key) {
    int const stage = k_.stage();
    barrier_wait(shared().k_empty[stage], k_.parity() ^ 1);
    barrier_expect(shared().k_full[stage], sizeof shared().k[0]);
#pragma unroll 1
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.k, shared().k[stage][chunk], chunk * chunk_dims, key, work.kv_head, work.batch,
               shared().k_full[stage]);
    }
    k_.advance();
  }
  __device__ __forceinline__ void load_v(Work const& work, int key) {
    int const stage = v_.stage();
    barrier_wait(shared().v_empty[stage], v_.parity() ^ 1);
    barrier_expect(shared().v_full[stage], sizeof shared().v[0]);
#pragma unroll 1
    for (int chunk = 0; chunk < C::value_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.v, shared().v[stage][chunk], chunk * chunk_dims, key, work.kv_head, work.batch,
               shared().v_full[stage]);
    }
    v_.advance();
  }

  FoldArgs const& args_;
  Maps const& maps_;
  Ring<C::stages> work_, k_, v_;
  Ring<1> q_;
};

}  // namespace plait::cuda::hopper
