// What producer and consumers of the Hopper fold share: its configuration, its shared memory, its work.
#pragma once

#include <cuda.h>

#include "../finish.cuh"
#include "../fold_args.hpp"
#include "tile.cuh"

namespace plait::cuda::hopper {

constexpr float minus_infinity = -__builtin_huge_valf();
constexpr int largest_shared_bytes = 227 * 1024;
/// Columns of fp32 in a row of the staged state: 128 bytes.
constexpr int state_columns = 32;

/// What is fixed when a kernel is compiled.
template <class ElementType, int HeadDim, int ValueDim, int Warpgroups, int KeyBlock, int Stages,
          bool PingPong>
struct FoldConfig {
  using Element = ElementType;
  static constexpr int head_dim = HeadDim;
  static constexpr int value_dim = ValueDim;
  static constexpr int warpgroups = Warpgroups;  ///< consumers
  static constexpr int tile_rows = 64 * Warpgroups;
  static constexpr int key_block = KeyBlock;
  static constexpr bool ping_pong = PingPong;
  static constexpr int stages = Stages;
  static constexpr int threads = warpgroup_threads * (Warpgroups + 1);
  /// Scores, weights and O take most of a consumer's registers; the producer is better off with more than 40.
  static constexpr bool large = key_block / 2 + key_block / 4 + value_dim / 2 > 180;
  static constexpr int producer_registers = Warpgroups == 3 ? 32 : large ? 40 : 56;
  static constexpr int consumer_registers = Warpgroups == 3 ? 160 : large ? 232 : 224;
  /// Two blocks can share keys if each can load a half of the columns.
  static constexpr bool may_share_keys = HeadDim % (2 * chunk_dims) == 0 && ValueDim % (2 * chunk_dims) == 0;
  /// Whether a warpgroup computes the first half of a masked block alone where its rows see no key of the
  /// other.
  static constexpr bool halves_blocks = KeyBlock == 128;
  static constexpr int state_chunks = ValueDim / state_columns;
  /// Whether shared memory has room for a tile's rows of O in fp32 beside everything else.
  static constexpr bool stages_rows =
      2 * (tile_rows * head_dim + stages * key_block * (head_dim + value_dim)) +
          static_cast<int>(sizeof(float)) * tile_rows * value_dim + 3 * 1024 <=
      largest_shared_bytes;
  /// Per thread, as the kernel is launched: warpgroups exchange these and no others; a warpgroup that asks
  /// for more waits for ever.
  static constexpr int launch_registers = 65536 / threads / 8 * 8;
  static_assert(producer_registers + Warpgroups * consumer_registers <= (Warpgroups + 1) * launch_registers);
  static_assert(HeadDim % chunk_dims == 0 && ValueDim % chunk_dims == 0 && KeyBlock % 16 == 0);
};

/// One tile of one head, as the producer hands it to the consumers; a tile that begins at −1 is the end.
struct Work {
  Tile tile;
  std::int32_t head;
  std::int32_t kv_head;
  std::int32_t batch;
};

/// How a stage's key block is to be treated; it comes with the keys of a segment's first block and of every
/// masked one, where consumers look it up.
struct alignas(16) KeyBlock {
  Segment segment;    ///< that it belongs to
  std::int32_t key;   ///< its first
  std::int32_t left;  ///< blocks of the segment, from this one on
  std::int32_t last;  ///< whether the segment is the tile's last one
};

/// Where a warpgroup's rows of a tile lie, as TMA counts, in the state and in the output (whose rows are the
/// same unless the tile is a part of another, which is not finished); no row is the end.
struct RowBox {
  std::int32_t row;
  std::int32_t head;
  std::int32_t batch;

  [[nodiscard]] __device__ __forceinline__ std::int32_t plane(FoldArgs const& args) const {
    return batch * args.q_heads + head;
  }
};

/// Each warpgroup's rows on their way between device memory and registers: O, or in its place output.
template <class C>
struct alignas(1024) RowStage {
  float o[C::warpgroups][C::state_chunks][64][state_columns];
};
/// And their m and l.
struct RowSums {
  float m[64];
  float l[64];
};
struct NoRowStage {};

template <class C>
struct alignas(1024) Shared {
  typename C::Element q[C::warpgroups][C::head_dim / chunk_dims][64][chunk_dims];
  typename C::Element k[C::stages][C::head_dim / chunk_dims][C::key_block][chunk_dims];
  typename C::Element v[C::stages][C::value_dim / chunk_dims][C::key_block][chunk_dims];
  std::conditional_t<C::stages_rows, RowStage<C>, NoRowStage> stage;
  Barrier q_full[C::warpgroups], q_empty[C::warpgroups];
  Barrier rows_full[C::warpgroups];
  RowSums sums[C::warpgroups];
  RowBox wanted[C::warpgroups];
  Barrier k_full[C::stages], k_empty[C::stages];
  Barrier v_full[C::stages], v_empty[C::stages];
  Barrier work_full[C::stages], work_empty[C::stages];
  Work work[C::stages];
  Work current[4 * C::warpgroups];  ///< each consumer warp's own tile
  KeyBlock blocks[C::stages];
  Barrier item_full, item_empty;  ///< from a cluster's leader to its other block
  std::int32_t item;
};

/// Whether the two blocks of a cluster work on tiles that see the same keys, and load each key once.
template <class C>
__device__ __forceinline__ bool shares_keys(FoldArgs const& args) {
  return C::may_share_keys && args.cluster == 2;
}
/// Blocks of a cluster.
template <class C>
__device__ __forceinline__ int cluster_size(FoldArgs const& args) {
  return shares_keys<C>(args) ? 2 : 1;
}

/// The block's shared memory; at a fixed address, which costs no registers.
template <class C>
__device__ __forceinline__ Shared<C>& shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return *reinterpret_cast<Shared<C>*>(memory);
}

/// Which named barrier serves what; 0 is __syncthreads'. A thread that waits at one is not scheduled, where
/// one that waits for an mbarrier polls it.
template <class C>
struct NamedBarrier {
  static constexpr int turn = 1;                           ///< a warpgroup's turn at the tensor cores
  static constexpr int own = turn + C::warpgroups;         ///< a warpgroup by itself
  static constexpr int rows_wanted = own + C::warpgroups;  ///< from a warpgroup to its row mover
  static constexpr int rows_done = rows_wanted + C::warpgroups;
  static_assert(rows_done + C::warpgroups <= 16);
  /// A warpgroup, and the warp that moves its rows.
  static constexpr int row_threads = warpgroup_threads + 32;
};

/// A box of 64 columns of a warpgroup's output in its stage.
template <class C>
__device__ __forceinline__ typename C::Element* staged_output(int warpgroup, int chunk) {
  auto* const output =
      reinterpret_cast<typename C::Element*>(&shared_memory<C>().stage.o[warpgroup][0][0][0]);
  return output + chunk * 64 * chunk_dims;
}

struct Maps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap o;       ///< of the state, if rows move and are carried or not finished
  CUtensorMap out;     ///< if rows move and are finished
  bool moves_rows;     ///< through shared memory
  int first_clusters;  ///< that begin together: as many as have room, if there is work for them
};

/// Whether a warpgroup's rows of a tile are 64 of the state's, or end with the state: what is copied as a
/// whole box.
__device__ __forceinline__ bool is_box(FoldArgs const& args, Tile const& tile, int warpgroup) {
  return tile.row_begin + 64 * (warpgroup + 1) <= tile.row_end ||
         tile.row_end + tile.state_shift == args.state_rows;
}

/// The index of a row of a head's state among all of the state.
__device__ __forceinline__ std::int64_t state_row(FoldArgs const& args, int batch, int head, int row) {
  return (static_cast<std::int64_t>(batch) * args.q_heads + head) * args.state_rows + row;
}
/// Of a row of the block, in a tile.
__device__ __forceinline__ std::int64_t state_row(FoldArgs const& args, Work const& work, int row) {
  return state_row(args, work.batch, work.head, row + work.tile.state_shift);
}

}  // namespace plait::cuda::hopper
