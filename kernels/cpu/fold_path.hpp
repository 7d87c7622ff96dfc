// What the CPU device asks of a path: the fold of one query tile for one key/value head and the query heads
// that follow it.
#pragma once

#include "plait/device.hpp"
#include "plait/tile_list.hpp"

namespace plait::cpu {

/// One work item. Scratch is the thread's own, `scratch_floats(…)` long, aligned to 64 bytes.
struct FoldItem {
  FoldOperands const& operands;
  TileList const& list;
  QueryTile const& tile;
  Index batch;
  Index kv_head;
  float* scratch;
};

/// One instruction set's way to fold.
struct FoldPath {
  void (*fold)(FoldItem const&);
  /// Floats of scratch per thread for these dimensions.
  std::size_t (*scratch_floats)(Index head_dim, Index value_dim);
};

/// Query rows of a tile; tiles of all paths are equal, so that the same plan serves each.
inline constexpr Index tile_rows = 192;

[[nodiscard]] FoldPath scalar_path();
#ifdef __x86_64__
[[nodiscard]] FoldPath avx2_path();
[[nodiscard]] FoldPath avx512_path();
#endif

}  // namespace plait::cpu
