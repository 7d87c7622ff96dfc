// What the blocked flash tile needs to multiply by vectors: rows of broadcast words by a panel's columns, in
// registers. The includer has defined `registers` (of vectors, that the processor has), `block_rows`,
// `word_elements` and `multiply_add(sum, a, b)` on vectors of words, beside what vector.inl needs.

#include "panel.inl"

constexpr Index largest_block = 512;  // keys that are packed at once, at most
constexpr Index largest_dim = 512;
// Words from one row of a block to the next, in all its arrays: a constant, so that the micro-kernel's
// addresses are one register and offsets; and not a multiple of 2 KiB, so that rows do not share cache sets.
constexpr Index row_stride = largest_dim + 16;
constexpr Index row_step = block_rows / 3;
// Unrolled where registers are left for what GCC then loads early.
constexpr Index depth_step = registers > 16 ? lanes / word_elements : 1;
constexpr int row_unroll = 12;  // all: sums stay in registers

/// sums = A · B: A is [rows][depth], B is [depth][panel], `vectors` of it wide; depth is a multiple of
/// depth_step.
template <Index rows, Index vectors>
inline void multiply_here(float const* a, float const* b, Index depth, Vector (&sums)[rows][vectors]) {
#pragma GCC unroll 12
  for (Index i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (Index j = 0; j < vectors; ++j) sums[i][j] = Vector{};
  }
  for (Index d = 0; d < depth; d += depth_step) {
    asm("" : "+r"(a), "+r"(b));  // GCC would count in vector registers, whose units are busy
#pragma GCC unroll 16
    for (Index step = 0; step < depth_step; ++step) {
      Vector columns[vectors];
#pragma GCC unroll 2
      for (Index j = 0; j < vectors; ++j) columns[j] = load_vector(b + step * panel + j * lanes);
#pragma GCC unroll 12
      for (Index i = 0; i < rows; ++i) {
        Vector const value = splat(a[i * row_stride + step]);
#pragma GCC unroll 2
        for (Index j = 0; j < vectors; ++j) sums[i][j] = multiply_add(sums[i][j], value, columns[j]);
      }
    }
    a += depth_step;
    b += depth_step * panel;
  }
}

/// The same where nothing else is live: with 16 registers, one more value would put a sum into memory.
template <Index rows, Index vectors>
[[gnu::noinline]] void multiply_apart(float const* a, float const* b, Index depth,
                                      Vector (&sums)[rows][vectors]) {
  Vector own[rows][vectors];
  multiply_here<rows, vectors>(a, b, depth, own);
#pragma GCC unroll 12
  for (Index i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (Index j = 0; j < vectors; ++j) sums[i][j] = own[i][j];
  }
}

template <Index rows, Index vectors>
inline void multiply(float const* a, float const* b, Index depth, Vector (&sums)[rows][vectors]) {
  if constexpr (registers > 16) {
    multiply_here<rows, vectors>(a, b, depth, sums);
  } else {
    multiply_apart<rows, vectors>(a, b, depth, sums);
  }
}
