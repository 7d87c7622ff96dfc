// AMX: the tile registers' six instructions, by hand because the compiler's own take no template's constants.
// A tile is 16 rows of 64 bytes. They need no compiler flag, so this header may be included anywhere.
#pragma once

#include <cstdint>

namespace plait::cpu {

/// The processor's own tile registers, of the calling thread.
struct AmxTiles {
  /// All eight tiles become whole ones; to be called before any other.
  static void configure() {
    struct alignas(64) Configuration {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static_assert(sizeof(Configuration) == 64);
    Configuration const configuration;
    asm volatile("ldtilecfg %0" : : "m"(configuration));
  }
  /// The tiles are given up, so that threads need not save them.
  static void release() { asm volatile("tilerelease"); }

  template <int tile>
  static void clear() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  /// @param stride  bytes from one row to the next
  template <int tile>
  static void load(void const* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  static void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
  }
  /// sum[m][n] += Σ_k a[m][2k] · b[k][2n] + a[m][2k + 1] · b[k][2n + 1]; a, b: bf16, sum: fp32.
  template <int sum, int a, int b>
  static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
  }
};

}  // namespace plait::cpu
