// What the blocked flash tile needs to multiply by vectors: rows of broadcast words by a panel's columns, in
// registers. The includer has defined `block_rows`, `word_elements` and `multiply_add(sum, a, b)` on vectors
// of words, beside what vector.inl needs.

#include "panel.inl"

constexpr Index row_step = block_rows / 3;
constexpr Index depth_step = 1;
constexpr int row_unroll = 12;  // all: sums stay in registers

/// sums = A · B: A is [rows][depth], B is [depth][panel], `vectors` of it wide.
template <Index rows, Index vectors>
inline void multiply(float const* a, float const* b, Index depth, Vector (&sums)[rows][vectors]) {
#pragma GCC unroll 12
  for (Index i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (Index j = 0; j < vectors; ++j) sums[i][j] = Vector{};
  }
  for (Index d = 0; d < depth; ++d) {
    Vector columns[vectors];
#pragma GCC unroll 2
    for (Index j = 0; j < vectors; ++j) columns[j] = load_vector(b + d * panel + j * lanes);
#pragma GCC unroll 12
    for (Index i = 0; i < rows; ++i) {
      Vector const value = splat(a[i * row_stride + d]);
#pragma GCC unroll 2
      for (Index j = 0; j < vectors; ++j) sums[i][j] = multiply_add(sums[i][j], value, columns[j]);
    }
  }
}
