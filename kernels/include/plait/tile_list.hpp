// The work list of one fold: for each query tile the key ranges to visit. Made once per plan from the bands
// that meet the fold's two blocks; so one launch covers any mask in time proportional to the area kept.
#pragma once

#include <span>
#include <vector>

#include "plait/band.hpp"

namespace plait {

/// Keys that some rows of one query tile see. Positions are local: rows count from the fold's first query,
/// keys from its first key. Row i of [rows) sees key j of [keys) iff lo ≤ j − i ≤ hi (local diagonals).
struct KeyRange {
  Slice rows;
  Slice keys;
  Index lo = Band::no_lo;
  Index hi = Band::no_hi;

  /// Every row of `tile` sees every key of `part` (⊆ keys): the inner loop needs no mask test.
  [[nodiscard]] bool is_full(Slice tile, Slice part) const {
    return rows.contains(tile) && lo <= part.begin - (tile.end - 1) && part.end - 1 - tile.begin <= hi;
  }
};

/// One query tile and its key ranges: `ranges[first, last)` of the list.
struct QueryTile {
  Slice rows;
  Index first = 0;
  Index last = 0;
  Index area = 0;  ///< pairs kept
};

/// Query tiles that see at least one key, largest area first; the same tiles serve every head and batch
/// entry. Tiles may be shorter than `tile_rows`: where one document ends and a long one begins, so does a
/// tile.
struct TileList {
  Index q_rows = 0;
  Index kv_rows = 0;
  Index tile_rows = 0;
  std::vector<QueryTile> tiles;
  std::vector<KeyRange> ranges;  ///< per tile in ascending order of first key
  std::vector<Slice> unseeing;   ///< rows without a key, in pieces of at most `tile_rows`, ascending

  [[nodiscard]] Index area() const;
  [[nodiscard]] std::size_t bytes() const {
    return tiles.capacity() * sizeof(QueryTile) + ranges.capacity() * sizeof(KeyRange) +
           unseeing.capacity() * sizeof(Slice);
  }
};

/// Cuts the bands to the fold's blocks and sorts them into query tiles of at most `tile_rows` rows.
/// @param q, kv  the blocks' global slices
/// @param bands  disjoint bands, in global positions; parts outside q × kv are ignored
[[nodiscard]] TileList make_tile_list(Slice q, Slice kv, std::span<Band const> bands, Index tile_rows);

}  // namespace plait
