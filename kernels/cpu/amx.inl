// What the blocked flash tile needs to multiply by tiles of bf16: two tiles of rows by two of columns. The
// includer has defined `Tiles` (as AmxTiles), beside what vector.inl needs.

#include "panel.inl"

constexpr Index largest_block = 2048;  // keys that are packed at once, at most
constexpr Index tile_side = 16;        // rows of a tile, and its words
constexpr Index block_rows = 2 * tile_side;
constexpr Index depth_step = tile_side;
static_assert(panel == 2 * tile_side);
constexpr Index left_step = block_rows * depth_step;   // words of a step of the left operand
constexpr Index right_step = depth_step * panel;       // and of the right one
constexpr Index block_floats = block_rows * panel;     // of a block of sums
constexpr Index tile_floats = tile_side * depth_step;  // of a tile of the left operand

/// sums = A · B, or += if they are `carried` on: A is [steps][block_rows][depth_step] words, B is
/// [steps · depth_step][panel] words, sums are [block_rows][panel] floats.
/// @tparam tall  whether there are more rows than a tile's: of the others nothing is read or written
/// @param between  called with the number of each step, after its products have been asked for: what it does
///                 runs beside them
template <bool tall, class Between>
inline void multiply(float const* a, float const* b, Index steps, bool carried, float* sums,
                     Between&& between) {
  constexpr Index left = depth_step * word_bytes;
  constexpr Index right = panel * word_bytes;
  constexpr Index lower = tile_side * panel;
  if (carried) {
    Tiles::load<0>(sums, right);
    Tiles::load<1>(sums + lanes, right);
    if constexpr (tall) Tiles::load<2>(sums + lower, right);
    if constexpr (tall) Tiles::load<3>(sums + lower + lanes, right);
  } else {
    Tiles::clear<0>();
    Tiles::clear<1>();
    if constexpr (tall) Tiles::clear<2>();
    if constexpr (tall) Tiles::clear<3>();
  }
  for (Index step = 0; step < steps; ++step) {
    Tiles::load<4>(a + step * left_step, left);
    Tiles::load<6>(b + step * right_step, right);
    Tiles::multiply_add<0, 4, 6>();
    Tiles::load<7>(b + step * right_step + lanes, right);
    Tiles::multiply_add<1, 4, 7>();
    if constexpr (tall) {
      Tiles::load<5>(a + step * left_step + tile_floats, left);
      Tiles::multiply_add<2, 5, 6>();
      Tiles::multiply_add<3, 5, 7>();
    }
    between(step);
  }
  Tiles::store<0>(sums, right);
  Tiles::store<1>(sums + lanes, right);
  if constexpr (tall) Tiles::store<2>(sums + lower, right);
  if constexpr (tall) Tiles::store<3>(sums + lower + lanes, right);
}
