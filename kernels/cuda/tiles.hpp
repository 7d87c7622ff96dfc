// A fold's tile list as its kernel reads it.
#pragma once

#include <vector>

#include "fold_args.hpp"
#include "plait/tile_list.hpp"

namespace plait::cuda {

struct KernelTiles {
  std::vector<Tile> tiles;        ///< long ones first (within a factor of 2); those without segments last
  std::vector<Segment> segments;  ///< per tile in descending order of keys
};

/// Cuts each key range into a part that needs no mask test, a whole number of `key_block` keys, and masked
/// parts at its ends. Query tiles that see no key are listed too, without segments: a fold that starts from
/// the identity or writes the output must visit them.
[[nodiscard]] KernelTiles make_kernel_tiles(TileList const& list, Index key_block);

}  // namespace plait::cuda
