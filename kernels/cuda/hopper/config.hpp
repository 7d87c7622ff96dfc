// Tile sizes of the Hopper fold: the one place where they are chosen.
#pragma once

namespace plait::cuda::hopper {

struct TileShape {
  int warpgroups;  ///< consumers, 64 query rows each
  int key_block;
  int stages;                    ///< of K, and of V, in shared memory
  bool ping_pong;                ///< warpgroups take turns at the tensor cores
  double shared_key_time = 1.0;  ///< FoldKernel's: as measured where pairs begin to pay (kernel-log.md, 29)

  [[nodiscard]] constexpr int rows() const { return 64 * warpgroups; }
};

/// @param head_dim, value_dim  as compiled: (64, 64), (128, 128), (192, 128), (256, 256)
/// @param banded  tiles meet masks, whose blocks are better small, and of 128 keys to fit block masks
[[nodiscard]] constexpr TileShape tile_shape(int head_dim, int value_dim, bool banded) {
  if (head_dim <= 64) return {3, 128, 4, true};
  if (head_dim <= 128) return {2, banded ? 128 : 176, 2, true, 0.98};
  if (value_dim <= 128) return {2, 128, 2, true};
  return {2, banded ? 64 : 80, 2, false, 0.91};
}

}  // namespace plait::cuda::hopper
