// The blocked fold of bf16 for AVX-512 with VDPBF16PS: two products of bf16 per 32-bit word, added to fp32.
// Compiled with flags of its own: nothing here may be inline and shared with other files, or the linker could
// pick this file's copy for processors that lack the instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

#include "avx512.inl"
#include "avx512_bf16.inl"

constexpr Index block_rows = 12;

inline Vector multiply_add(Vector sum, Vector a, Vector b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

#include "fma.inl"
#include "fold_vector.inl"

}  // namespace

FoldPath avx512_bf16_path() {
  FoldPath const wide = avx512_path();  // its arithmetic on a few rows is as fast as memory
  return {fold_packed, wide.fold_few, wide.group_rows, [](Index head_dim, Index value_dim) {
            return std::max(scratch_floats(head_dim, value_dim),
                            avx512_path().scratch_floats(head_dim, value_dim));
          }};
}

}  // namespace plait::cpu
