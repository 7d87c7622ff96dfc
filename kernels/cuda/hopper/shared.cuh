// What producer and consumers of the Hopper fold share: its configuration, its shared memory, its work.
#pragma once

#include <cuda.h>

#include "../fold_args.hpp"
#include "tile.cuh"

namespace plait::cuda::hopper {

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

/// Where a warpgroup's rows of a tile lie, as TMA counts; no row is the end.
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
struct NoRowStage {};

template <class C>
struct alignas(1024) Shared {
  typename C::Element q[C::warpgroups][C::head_dim / chunk_dims][64][chunk_dims];
  typename C::Element k[C::stages][C::head_dim / chunk_dims][C::key_block][chunk_dims];
  typename C::Element v[C::stages][C::value_dim / chunk_dims][C::key_block][chunk_dims];
  std::conditional_t<C::stages_rows, RowStage<C>, NoRowStage> stage;
  float carried_m[C::warpgroups][64];
  Barrier q_full[C::warpgroups], q_empty[C::warpgroups];
  Barrier rows_wanted[C::warpgroups], rows_full[C::warpgroups], rows_done[C::warpgroups];
  RowBox wanted[C::warpgroups];
  Barrier k_full[C::stages], k_empty[C::stages];
  Barrier v_full[C::stages], v_empty[C::stages];
  Barrier work_full[C::stages], work_empty[C::stages];
  Work work[C::stages];
  Work current[4 * C::warpgroups];  ///< each consumer warp's own tile
  KeyBlock blocks[C::stages];
};

/// The block's shared memory; at a fixed address, which costs no registers.
template <class C>
__device__ __forceinline__ Shared<C>& shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return *reinterpret_cast<Shared<C>*>(memory);
}

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
  CUtensorMap o;    ///< of the state, if rows move and are carried or not finished
  CUtensorMap out;  ///< if rows move and are finished
  bool moves_rows;  ///< through shared memory
};

/// Whether a warpgroup's rows of a tile are 64 of the state's, or end with the state: what is copied as a
/// whole box.
__device__ __forceinline__ bool is_box(FoldArgs const& args, Tile const& tile, int warpgroup) {
  return tile.row_begin + 64 * (warpgroup + 1) <= tile.row_end || tile.row_end == args.rows;
}

/// The index of a row of a work's head among the rows of the state.
__device__ __forceinline__ std::int64_t state_row(FoldArgs const& args, Work const& work, int row) {
  return (static_cast<std::int64_t>(work.batch) * args.q_heads + work.head) * args.rows + row;
}

}  // namespace plait::cuda::hopper
