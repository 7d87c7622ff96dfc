// What the CPU device asks of a path: the fold of some query tiles for one key/value head and query heads
// that follow it.
#pragma once

#include "plait/device.hpp"
#include "plait/tile_list.hpp"

namespace plait::cpu {

/// A stretch of a list of key ranges: all of [first, last), but for `skipped` keys of the first range and
/// `left` keys of the last one.
struct Stretch {
  Index first = 0;
  Index last = 0;
  Index skipped = 0;
  Index left = 0;
};

/// One work item: the tiles `tiles` of the list. Scratch is the thread's own, `scratch_floats(…)` long,
/// aligned to 64 bytes.
struct FoldItem {
  FoldOperands const& operands;
  TileList const& list;
  Slice tiles;
  Index batch;
  Index kv_head;    ///< the one that `heads` follow, but for fold_few
  Slice heads;      ///< query heads
  Stretch stretch;  ///< if there is one tile: the part of its ranges to fold
  StateView state;
  Index origin;  ///< row `row` of query head `head` is row origin + head · state.rows + row of m, l and O
  float* scratch;
};

/// The item's ranges of one of its tiles, as indices of `list.ranges`.
[[nodiscard]] Slice ranges_of(FoldItem const& item, Index tile);
/// One of these, cut to the item's stretch.
[[nodiscard]] KeyRange range_at(FoldItem const& item, Index range);

/// One instruction set's way to fold.
struct FoldPath {
  void (*fold)(FoldItem const&);
  /// For one tile of few rows, and the query heads of several key/value heads, `few_rows` rows in all: memory
  /// is the bound, so nothing is packed, and the heads' keys are read together, as they lie.
  void (*fold_few)(FoldItem const&);
  Index group_rows;  ///< fold_few serves tiles with so many rows, or fewer, for each key/value head
  /// Floats of scratch per thread for these dimensions.
  std::size_t (*scratch_floats)(Index head_dim, Index value_dim);
};

/// Rows of an item of fold_few at most.
inline constexpr Index few_rows = 64;
/// Query rows of a tile; tiles of all paths are equal, so that the same plan serves each.
inline constexpr Index tile_rows = 192;
/// Tiles of an item at most: keys are packed once for all of them.
inline constexpr Index item_tiles = 12;

[[nodiscard]] FoldPath scalar_path();
#ifdef __x86_64__
[[nodiscard]] FoldPath avx2_path();
[[nodiscard]] FoldPath avx512_path();
/// These two for bf16 only; the other types take avx512_path().
[[nodiscard]] FoldPath avx512_bf16_path();
[[nodiscard]] FoldPath amx_bf16_path();
#endif

}  // namespace plait::cpu
