// What producer and consumers of the Hopper fold share: its configuration, its shared memory, its work.
#pragma once

#include <cuda.h>

#include "../fold_args.hpp"
#include "tile.cuh"

namespace plait::cuda::hopper {

/// What is fixed when a kernel is compiled.
template <class ElementType, int HeadDim, int ValueDim, int Warpgroups, int KeyBlock, bool PingPong>
struct FoldConfig {
  using Element = ElementType;
  static constexpr int head_dim = HeadDim;
  static constexpr int value_dim = ValueDim;
  static constexpr int warpgroups = Warpgroups;  ///< consumers
  static constexpr int tile_rows = 64 * Warpgroups;
  static constexpr int key_block = KeyBlock;
  static constexpr bool ping_pong = PingPong;
  static constexpr int stages = 2;
  static constexpr int threads = warpgroup_threads * (Warpgroups + 1);
  static constexpr int producer_registers = Warpgroups == 3 ? 32 : 40;
  static constexpr int consumer_registers = Warpgroups == 3 ? 160 : 232;
  static_assert(HeadDim % chunk_dims == 0 && ValueDim % chunk_dims == 0 && KeyBlock % 16 == 0);
};

/// One tile of one head, as the producer hands it to the consumers; a tile that begins at −1 is the end.
struct Work {
  Tile tile;
  std::int32_t head;
  std::int32_t kv_head;
  std::int32_t batch;
  Segment first;  ///< the tile's first segment, if it has one
};

template <class C>
struct alignas(1024) Shared {
  typename C::Element q[C::head_dim / chunk_dims][C::tile_rows][chunk_dims];
  typename C::Element k[C::stages][C::head_dim / chunk_dims][C::key_block][chunk_dims];
  typename C::Element v[C::stages][C::value_dim / chunk_dims][C::key_block][chunk_dims];
  Barrier q_full, q_empty;
  Barrier k_full[C::stages], k_empty[C::stages];
  Barrier v_full[C::stages], v_empty[C::stages];
  Barrier work_full[C::stages], work_empty[C::stages];
  Work work[C::stages];
  Work current[4 * C::warpgroups];  ///< each consumer warp's own tile
};

/// The block's shared memory; at a fixed address, which costs no registers.
template <class C>
__device__ __forceinline__ Shared<C>& shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return *reinterpret_cast<Shared<C>*>(memory);
}

struct Maps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
};

/// The index of a row of a work's head among the rows of the state.
__device__ __forceinline__ std::int64_t state_row(FoldArgs const& args, Work const& work, int row) {
  return (static_cast<std::int64_t>(work.batch) * args.q_heads + work.head) * args.rows + row;
}

}  // namespace plait::cuda::hopper
