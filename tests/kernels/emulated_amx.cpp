// Compiled with flags of its own, as kernels/cpu/fold_amx_bf16.cpp is.
#include "emulated_amx.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

namespace plait::cpu {
namespace {

#include "cpu/avx512.inl"
#include "cpu/avx512_bf16.inl"

/// Eight tiles of 16 rows by 64 bytes, as Intel's Architecture Instruction Set Extensions Reference defines
/// their instructions; what is used before configure(), or after release(), ends the test.
struct EmulatedTiles {
  using Tile = std::uint32_t[16][16];

  static void configure() {
    if (std::exchange(configured(), true)) std::abort();
    std::memset(tile(0), 0xff, sizeof(Tile) * 8);  // NaNs: nothing may be counted on
  }
  static void release() {
    if (!std::exchange(configured(), false)) std::abort();
  }
  template <int target>
  static void clear() {
    std::memset(tile(target), 0, sizeof(Tile));
  }
  template <int target>
  static void load(void const* from, std::int64_t stride) {
    for (int row = 0; row < 16; ++row) {
      std::memcpy(tile(target)[row], static_cast<std::byte const*>(from) + row * stride, 64);
    }
  }
  template <int source>
  static void store(void* to, std::int64_t stride) {
    auto* bytes = static_cast<std::byte*>(to);
    asm("" : "+r"(bytes));  // GCC 12 warns that the array ends after its first vector
    for (int row = 0; row < 16; ++row) {
      std::memcpy(bytes + row * stride, tile(source)[row], 64);
    }
  }
  template <int sum, int a, int b>
  static void multiply_add() {
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 16; ++k) {
        std::uint32_t const pair = tile(a)[m][k];
        for (int n = 0; n < 16; ++n) {
          std::uint32_t const column = tile(b)[k][n];
          float total;
          std::memcpy(&total, &tile(sum)[m][n], sizeof total);
          total += low(pair) * low(column);
          total += high(pair) * high(column);
          std::memcpy(&tile(sum)[m][n], &total, sizeof total);
        }
      }
    }
  }

 private:
  static bool& configured() {
    static thread_local bool is = false;
    return is;
  }
  static std::uint32_t (*tile(int number))[16] {
    static thread_local Tile tiles[8];
    return tiles[number];
  }
  static float as_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static float low(std::uint32_t pair) { return as_float(pair << 16); }
  static float high(std::uint32_t pair) { return as_float(pair & 0xffff0000u); }
};

using Tiles = EmulatedTiles;

#include "cpu/fold_tiles.inl"

}  // namespace
}  // namespace plait::cpu

namespace plait::test {

cpu::FoldPath emulated_amx_path() {
  cpu::FoldPath const wide = cpu::avx512_path();
  return {cpu::fold_tiles, wide.fold_few, wide.group_rows, [](Index head_dim, Index value_dim) {
            return std::max(cpu::scratch_floats(head_dim, value_dim),
                            cpu::avx512_path().scratch_floats(head_dim, value_dim));
          }};
}

}  // namespace plait::test
