// The blocked flash tile on tile registers: `Tiles`, which the includer has defined.

#include "amx.inl"
#include "fold_vector.inl"

/// The thread holds its tiles for as long as it folds.
void fold_tiles(FoldItem const& item) {
  Tiles::configure();
  fold_packed(item);
  Tiles::release();
}
