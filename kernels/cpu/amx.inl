// What the blocked flash tile needs to multiply by tiles of bf16: two tiles of rows by two of columns. The
// includer has defined `Tiles` (as AmxTiles), beside what vector.inl needs.

#include "panel.inl"

constexpr Index block_rows = 32;
constexpr Index row_step = 16;    // rows of a tile
constexpr Index depth_step = 16;  // its words
constexpr int row_unroll = 1;     // sums lie in memory

/// sums = A · B: A is [rows][depth], B is [depth][panel], `vectors` of it wide; depth is a multiple of
/// depth_step.
template <Index rows, Index vectors>
inline void multiply(float const* a, float const* b, Index depth, Vector (&sums)[rows][vectors]) {
  constexpr bool tall = rows == block_rows;
  constexpr bool wide = vectors == 2;
  constexpr Index bytes = sizeof(float);
  Tiles::clear<0>();
  if constexpr (wide) Tiles::clear<1>();
  if constexpr (tall) Tiles::clear<2>();
  if constexpr (tall && wide) Tiles::clear<3>();
  for (Index d = 0; d < depth; d += depth_step) {
    Tiles::load<4>(a + d, row_stride * bytes);
    Tiles::load<6>(b + d * panel, panel * bytes);
    Tiles::multiply_add<0, 4, 6>();
    if constexpr (wide) {
      Tiles::load<7>(b + d * panel + lanes, panel * bytes);
      Tiles::multiply_add<1, 4, 7>();
    }
    if constexpr (tall) {
      Tiles::load<5>(a + row_step * row_stride + d, row_stride * bytes);
      Tiles::multiply_add<2, 5, 6>();
      if constexpr (wide) Tiles::multiply_add<3, 5, 7>();
    }
  }
  constexpr Index stride = vectors * static_cast<Index>(sizeof(Vector));
  Tiles::store<0>(&sums[0][0], stride);
  if constexpr (wide) Tiles::store<1>(&sums[0][1], stride);
  if constexpr (tall) Tiles::store<2>(&sums[row_step][0], stride);
  if constexpr (tall && wide) Tiles::store<3>(&sums[row_step][1], stride);
}
