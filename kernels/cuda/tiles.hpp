// A fold's tile list as its kernel reads it.
#pragma once

#include <vector>

#include "fold_args.hpp"
#include "plait/tile_list.hpp"

namespace plait::cuda {

struct KernelTiles {
  int cluster = 1;                ///< so many tiles in a row have the same segments
  std::vector<Tile> tiles;        ///< long ones first (within a factor of 2); those without segments last
  std::vector<Segment> segments;  ///< per tile in the order of keys: what a causal mask cuts off comes last
};

/// Cuts each key range into a part that needs no mask test, a whole number of `key_block` keys, and masked
/// parts at its ends. Query tiles that see no key are listed too, without segments: a fold that starts from
/// the identity or writes the output must visit them.
/// @param cluster  1, or 2: each of the list's tiles becomes two, of half its rows and with its segments
[[nodiscard]] KernelTiles make_kernel_tiles(TileList const& list, Index key_block, int cluster = 1);

/// Key blocks that a tile visits, and that all of a head's do.
[[nodiscard]] Index visited_blocks(KernelTiles const& tiles, Tile const& tile);
[[nodiscard]] Index visited_blocks(KernelTiles const& tiles);

}  // namespace plait::cuda
