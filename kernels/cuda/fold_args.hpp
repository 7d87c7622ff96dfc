// What a fold kernel is given: plain data that host and device share.
#pragma once

#include <cstdint>

#include "plait/dtype.hpp"

namespace plait::cuda {

/// A stretch of keys that a query tile visits in blocks of the kernel's size. Local positions, as in
/// KeyRange. An unmasked segment is a whole number of blocks of which every row of the tile sees every key;
/// of a masked one, row i of [row_begin, row_end) sees key j of [begin, end) iff lo ≤ j − i ≤ hi.
struct alignas(16) Segment {
  std::int32_t begin;
  std::int32_t end;
  std::int32_t row_begin;
  std::int32_t row_end;
  std::int32_t lo;
  std::int32_t hi;
  std::int32_t masked;
  std::int32_t blocks;  ///< key blocks, the last one possibly cut short
};

/// One query tile: rows [row_begin, row_end), at most the kernel's tile, and its segments.
struct alignas(16) Tile {
  std::int32_t row_begin;
  std::int32_t row_end;
  std::int32_t segment_begin;
  std::int32_t segment_end;
  Segment first;  ///< a copy of the first one, if there is one: a tile and where it starts come in one read
  std::int32_t state_shift;  ///< how far behind a row of the block its row of the state lies
};

/// A tensor [batch, rows, heads, dim]; strides in elements.
struct TensorArg {
  void const* data;
  std::int64_t batch_stride;
  std::int64_t row_stride;
  std::int64_t head_stride;
};

/// Everything but the tensors' TMA descriptors. `rows` and `keys` are the blocks'.
struct FoldArgs {
  Tile const* tiles;  ///< long ones first (within a factor of 2); those without segments last
  Segment const* segments;
  std::int32_t tile_count;
  std::int32_t cluster;  ///< 1, or 2: of each two tiles in a row, two blocks load the keys together
  std::int32_t batch;
  std::int32_t q_heads;
  std::int32_t group;  ///< query heads per key/value head
  std::int32_t rows;
  std::int32_t keys;
  std::int32_t state_rows;  ///< of a head in the state: `rows`, unless tiles are parts of others
  std::int32_t head_dim;
  std::int32_t value_dim;
  TensorArg q;
  TensorArg k;
  TensorArg v;
  float scale_log2;  ///< scale · log2(e)
  float* m;          ///< [batch, q_heads, state_rows]; so is l; o is [batch, q_heads, state_rows, value_dim]
  float* l;
  float* o;
  bool carried;   ///< read the state; else start from the identity
  bool finishes;  ///< write out and lse instead of the state
  void* out;      ///< of the inputs' type; strides in elements
  std::int64_t out_batch_stride;
  std::int64_t out_row_stride;
  std::int64_t out_head_stride;
  float* lse;  ///< or null
  std::int64_t lse_batch_stride;
  std::int64_t lse_head_stride;
  std::int64_t lse_row_stride;
  bool follows_fold;  ///< the stream's last work was a fold that wrote nothing but a state: may begin before
                      ///< that one has ended
  std::int32_t* next_item;      ///< a counter that is 0 before and after each launch
  std::int32_t* finished_ctas;  ///< likewise
  std::int32_t heads_at_once;   ///< query heads that are walked together, so that their K and V stay in L2
  std::int32_t tiles_per_turn;  ///< after so many tiles a block ends, and another one goes on where nothing
                                ///< of a higher priority waits for room; 0: it goes on to the last

  /// Whether the fold reads or writes the state.
  [[nodiscard]] constexpr bool touches_state() const { return carried || !finishes; }
};

}  // namespace plait::cuda
