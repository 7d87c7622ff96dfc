// The blocked fold for AVX2, FMA and F16C. Compiled with flags of its own: nothing here may be inline and
// shared with other files, or the linker could pick this file's copy for processors that lack the
// instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

constexpr Index lanes = 8;

inline auto load_half(std::uint16_t const* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
}

#include "fold_vector.inl"

}  // namespace

FoldPath avx2_path() {
  return path;
}

}  // namespace plait::cpu
