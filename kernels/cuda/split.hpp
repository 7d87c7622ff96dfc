// Folds of few tiles: the keys of a tile are split over multiprocessors, and the parts' states are joined.
#pragma once

#include <vector>

#include "split_rows.hpp"
#include "tiles.hpp"

namespace plait::cuda {

/// A fold's tiles in parts.
struct SplitTiles {
  KernelTiles parts;            ///< each with a state of its own, in scratch
  std::vector<SplitRows> rows;  ///< how those are joined: all rows that the fold visits
  Index state_rows = 0;         ///< of a head, in scratch
};

/// Whether so many tiles that see keys, of each of `lanes` query heads, are few enough.
[[nodiscard]] bool may_be_split(Index tiles, Index lanes, Index multiprocessors);

/// Into parts of how many key blocks tiles are to be cut, at most; 0 if they had better stay whole: there are
/// enough of them to keep all multiprocessors busy, or too few blocks to gain anything.
/// @param lanes       query heads of all batch entries, each with all of the tiles
/// @param neighbours  0 to 2: of the folds before and after it, those that may run in part while it does
[[nodiscard]] Index blocks_of_a_part(KernelTiles const& tiles, Index lanes, Index multiprocessors,
                                     Index neighbours);

/// @param most_blocks  of a part
/// @param tile_rows    the kernel's: each part's state has so many rows
[[nodiscard]] SplitTiles split_keys(KernelTiles const& whole, Index most_blocks, Index key_block,
                                    Index tile_rows);

}  // namespace plait::cuda
