// The blocked fold for AVX-512 F, BW, DQ and VL. Compiled with flags of its own: nothing here may be inline
// and shared with other files, or the linker could pick this file's copy for processors that lack the
// instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

constexpr Index lanes = 16;

// The form with a mask: GCC 12 warns of the other that its own header reads an undefined value.
inline auto load_half(std::uint16_t const* from) {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
}

#include "fold_vector.inl"

}  // namespace

FoldPath avx512_path() {
  return path;
}

}  // namespace plait::cpu
