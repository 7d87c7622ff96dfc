// The producer of the Hopper fold: one thread that finds work and feeds Q, K and V by TMA.
#pragma once

#include "shared.cuh"

namespace plait::cuda::hopper {

/// The `item`-th piece of work of a cluster, all but its tile. Heads go in groups whose keys and values fit
/// in L2 together; in a group the longest tiles of all heads come first. The blocks of a cluster take turns
/// at the later rows, which see more under a causal mask. @returns the number of this block's tile
template <class C>
__device__ __forceinline__ int find(FoldArgs const& args, int item, Work& work) {
  int const lanes = args.batch * args.q_heads;
  int const per_group = args.tile_count / cluster_size<C>(args) * args.heads_at_once;
  int const first = item / per_group * args.heads_at_once;
  int const width = min(args.heads_at_once, lanes - first);
  int const lane = first + item % per_group % width;
  work.head = lane % args.q_heads;
  work.kv_head = work.head / args.group;
  work.batch = lane / args.q_heads;
  int const tile = item % per_group / width;
  return shares_keys<C>(args) ? 2 * tile + (static_cast<int>(cluster_rank()) ^ item % 2) : tile;
}

template <class C>
class Producer {
 public:
  __device__ __forceinline__ Producer(FoldArgs const& args, Maps const& maps) : args_(args), maps_(maps) {}

  __device__ __forceinline__ void run() {
    int const cluster = static_cast<int>(blockIdx.x) / cluster_size<C>(args_);
    // The clusters that begin together take the first items in their order.
    bool more = hand_over(cluster < maps_.first_clusters ? cluster : agreed(take()));
    for (int left = args_.tiles_per_turn; more;) more = load(--left != 0);
    // The last block to run out of work leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(args_.finished_ctas, 1) == static_cast<int>(gridDim.x) - 1) {
      *args_.next_item = 0;
      *args_.finished_ctas = 0;
    }
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  static constexpr int no_item = 0x7fffffff;

  /// The next item, if this block takes items for its cluster.
  __device__ __forceinline__ int take() {
    return leads() ? maps_.first_clusters + atomicAdd(args_.next_item, 1) : 0;
  }
  /// Whether this block takes items for its cluster.
  [[nodiscard]] __device__ __forceinline__ bool leads() const {
    return !shares_keys<C>(args_) || cluster_rank() == 0;
  }

  /// Gives the consumers an item, or the end: its tile comes while this thread goes on. @returns whether
  /// there was one
  __device__ __forceinline__ bool hand_over(int item) {
    bool const exists = item < args_.tile_count / cluster_size<C>(args_) * args_.batch * args_.q_heads;
    Barrier& full = shared().work_full[work_.stage()];
    barrier_wait(shared().work_empty[work_.stage()], work_.parity() ^ 1);
    Work& work = shared().work[work_.stage()];
    if (exists) {
      int const tile = find<C>(args_, item, work);
      barrier_expect(full, sizeof work.tile);
      bulk_load(&args_.tiles[tile], &work.tile, sizeof work.tile, full);
    } else {
      work.tile.row_begin = -1;
      barrier_arrive(full);
    }
    work_.advance();
    return exists;
  }
  /// The item that the cluster's leader has taken.
  __device__ __forceinline__ int agreed(int item) {
    if (!shares_keys<C>(args_)) return item;
    if (leads()) {
      barrier_wait(shared().item_empty, item_.parity() ^ 1);
      send_to_peer(shared().item, item, shared().item_full);
    } else {
      barrier_expect(shared().item_full, sizeof shared().item);
      barrier_wait(shared().item_full, item_.parity());
      item = shared().item;
      barrier_arrive_peer(shared().item_empty);
    }
    item_.advance();
    return item;
  }

  /// Loads the tile that was handed over last, K one block ahead of V, and hands over the next item, if it
  /// `takes` one. It is asked for some blocks before the tile's end: early enough to be there in time, and
  /// late, so that no item waits for this block while another one runs out of work. @returns whether there is
  /// a next one
  __device__ __forceinline__ bool load(bool takes) {
    constexpr int blocks_ahead = 4;
    auto const own = work_.back(1);
    barrier_wait(shared().work_full[own.stage()], own.parity());
    Work const& work = shared().work[own.stage()];
    prefetch_rows(work);
    int at = work.tile.segment_begin;
    int const end = work.tile.segment_end;
    int key = work.tile.first.begin;
    int previous_key = key;
    int left = at == end ? 0 : work.tile.first.blocks;
    bool masked = work.tile.first.masked != 0;
    bool looked_up = true;
    bool more = true;
    bool asked = false;
    bool handed_over = false;
    int next = no_item;
    for (int block = 0;; ++block) {
      bool const over = at == end;
      bool const due = asked || over;
      if (!asked && (over || (at + 2 >= end && left <= blocks_ahead))) {
        if (takes) next = take();
        asked = true;
      }
      if (!over) load_k(work, at, key, left, looked_up);
      if (block > 0) {
        load_v(work, k_.back(over ? 1 : 2), previous_key);
      } else if (!over) {
        load_q(work);
      }
      if (due && !handed_over) {
        more = hand_over(agreed(next));
        handed_over = true;
      }
      if (over) return more;
      looked_up = masked;
      previous_key = key;
      key += C::key_block;
      if (--left > 0) continue;
      looked_up = true;
      if (++at == end) continue;  // the last values are still to come
      key = args_.segments[at].begin;
      left = args_.segments[at].blocks;
      masked = args_.segments[at].masked != 0;
    }
  }

  /// Brings the tile's queries, which find room in shared memory late, and the state that it carries into the
  /// L2 cache: the consumers are not to wait for the device's memory.
  __device__ __forceinline__ void prefetch_rows(Work const& work) const {
#pragma unroll 1
    for (int column = 0; column < C::head_dim; column += chunk_dims) {
#pragma unroll 1
      for (int row = 0; row < C::tile_rows; row += 64) {
        tma_prefetch(&maps_.q, column, work.tile.row_begin + row, work.head, work.batch);
      }
    }
    if (!args_.carried) return;
    std::int64_t const at = state_row(args_, work, work.tile.row_begin);
    int const rows = work.tile.row_end - work.tile.row_begin;
    if (!maps_.moves_rows) prefetch(args_.o + at * args_.value_dim, rows * args_.value_dim);
    prefetch(args_.m + at, rows);
    prefetch(args_.l + at, rows);
  }
  static __device__ __forceinline__ void prefetch(float const* data, int count) {
    bool const in_units = reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && count % 4 == 0;
    if (!in_units || count == 0) return;
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(data), "r"(count * 4) : "memory");
  }

  __device__ __forceinline__ void load_q(Work const& work) {
    // Each warpgroup's rows for themselves: those of the first are free, and back, a turn before the others'.
#pragma unroll 1
    for (int warpgroup = 0; warpgroup < C::warpgroups; ++warpgroup) {
      barrier_wait(shared().q_empty[warpgroup], q_.parity() ^ 1);
      barrier_expect(shared().q_full[warpgroup], sizeof shared().q[0]);
#pragma unroll 1
      for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
        tma_load(&maps_.q, shared().q[warpgroup][chunk], chunk * chunk_dims,
                 work.tile.row_begin + 64 * warpgroup, work.head, work.batch, shared().q_full[warpgroup]);
      }
    }
    q_.advance();
  }
  /// The first of `left` blocks of a segment that are to come. What consumers look up of a segment comes
  /// along where they do: with its first block, and with every masked one.
  __device__ __forceinline__ void load_k(Work const& work, int segment, int key, int left, bool looked_up) {
    int const stage = k_.stage();
    barrier_wait(shared().k_empty[stage], k_.parity() ^ 1);
    if (looked_up) {
      KeyBlock& block = shared().blocks[stage];
      block.key = key;
      block.left = left;
      block.last = segment + 1 == work.tile.segment_end ? 1 : 0;
      barrier_expect(shared().k_full[stage], sizeof shared().k[0] + sizeof block.segment);
      bulk_load(&args_.segments[segment], &block.segment, sizeof block.segment, shared().k_full[stage]);
    } else {
      barrier_expect(shared().k_full[stage], sizeof shared().k[0]);
    }
    load_keys<C::head_dim>(&maps_.k, shared().k[stage], key, work, shared().k_full[stage]);
    k_.advance();
  }
  /// The values of the keys that were loaded `at` that place of their ring: V has the same stages.
  __device__ __forceinline__ void load_v(Work const& work, Ring<C::stages> at, int key) {
    int const stage = at.stage();
    barrier_wait(shared().v_empty[stage], at.parity() ^ 1);
    barrier_expect(shared().v_full[stage], sizeof shared().v[0]);
    load_keys<C::value_dim>(&maps_.v, shared().v[stage], key, work, shared().v_full[stage]);
  }
  /// A block's keys or values, of which a cluster's two blocks load one half of the columns each, for both.
  template <int Dim>
  __device__ __forceinline__ void load_keys(CUtensorMap const* map,
                                            typename C::Element (*to)[C::key_block][chunk_dims], int key,
                                            Work const& work, Barrier& full) const {
    constexpr int chunks = Dim / chunk_dims;
    if (shares_keys<C>(args_)) {
      int const first = static_cast<int>(cluster_rank()) * (chunks / 2);
#pragma unroll 1
      for (int chunk = first; chunk < first + chunks / 2; ++chunk) {
        tma_load_both(map, to[chunk], chunk * chunk_dims, key, work.kv_head, work.batch, full);
      }
      return;
    }
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk) {
      tma_load(map, to[chunk], chunk * chunk_dims, key, work.kv_head, work.batch, full);
    }
  }

  FoldArgs const& args_;
  Maps const& maps_;
  Ring<C::stages> work_, k_;
  Ring<1> q_;
  Ring<1> item_;
};

}  // namespace plait::cuda::hopper
