// The blocked fold for AVX-512 F, BW, DQ and VL, in fp32. Compiled with flags of its own: nothing here may be
// inline and shared with other files, or the linker could pick this file's copy for processors that lack the
// instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

#include "avx512.inl"

constexpr Index block_rows = 12;
constexpr Index word_elements = 1;

inline Vector multiply_add(Vector sum, Vector a, Vector b) {
  return sum + a * b;
}

inline void store_weights(float* row, Index column, Vector weights) {
  store_vector(row + column, weights);
}

#include "fma.inl"
#include "fold_few.inl"
#include "fold_vector.inl"

}  // namespace

FoldPath avx512_path() {
  return {fold_packed, fold_few, group_rows, [](Index head_dim, Index value_dim) {
            return std::max(scratch_floats(head_dim, value_dim), few_scratch_floats(head_dim, value_dim));
          }};
}

}  // namespace plait::cpu
