// The blocked fold of bf16 for AMX: tiles of 16 rows by 32 bf16 times 32 bf16 by 16 columns, added to fp32.
// Compiled with flags of its own: nothing here may be inline and shared with other files, or the linker could
// pick this file's copy for processors that lack the instructions.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "amx_tiles.hpp"
#include "fold_path.hpp"

namespace plait::cpu {
namespace {

#include "avx512.inl"
#include "avx512_bf16.inl"

using Tiles = AmxTiles;

#include "fold_tiles.inl"

}  // namespace

FoldPath amx_bf16_path() {
  FoldPath const wide = avx512_path();  // its arithmetic on a few rows is as fast as memory
  return {fold_tiles, wide.fold_few, wide.group_rows, [](Index head_dim, Index value_dim) {
            return std::max(scratch_floats(head_dim, value_dim),
                            avx512_path().scratch_floats(head_dim, value_dim));
          }};
}

}  // namespace plait::cpu
