// Element types of tensors and their conversions. Arithmetic is fp32 or wider; these are storage formats.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace plait {

enum class DType : std::uint8_t { f32, f16, bf16 };

[[nodiscard]] constexpr std::size_t size_bytes(DType type) {
  return type == DType::f32 ? 4 : 2;
}

/// "f32", "f16", "bf16": as the command line spells them.
[[nodiscard]] constexpr std::string_view name(DType type) {
  return type == DType::f32 ? "f32" : type == DType::f16 ? "f16" : "bf16";
}

/// bf16 is the upper half of an fp32.
[[nodiscard]] constexpr float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Rounds to nearest even; NaN stays a (quiet) NaN.
[[nodiscard]] constexpr std::uint16_t float_to_bf16(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// IEEE binary16 to binary32: exact, subnormals included.
[[nodiscard]] constexpr float f16_to_float(std::uint16_t bits) {
  std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  std::uint32_t const magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity or NaN
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x400u) {  // zero or subnormal: magnitude · 2^−24
    float const value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

/// IEEE binary32 to binary16, rounding to nearest even; overflow becomes infinity, NaN stays NaN.
[[nodiscard]] constexpr std::uint16_t float_to_f16(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  auto const sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  std::uint32_t const magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // ≥ 65520 rounds to ∞
  if (magnitude < 0x38800000u) {  // below 2^−14: let fp32 addition round to multiples of 2^−24
    float const shifted = std::bit_cast<float>(magnitude) + 0.5f;  // ulp of [0.5, 1) is 2^−24
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  std::uint32_t const rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

/// Element `index` of a contiguous array of `type`, as fp32.
[[nodiscard]] inline float load(DType type, void const* data, std::ptrdiff_t index) {
  switch (type) {
    case DType::f32:
      return static_cast<float const*>(data)[index];
    case DType::f16:
      return f16_to_float(static_cast<std::uint16_t const*>(data)[index]);
    case DType::bf16:
      return bf16_to_float(static_cast<std::uint16_t const*>(data)[index]);
  }
  __builtin_unreachable();
}

/// Stores an fp32 as element `index` of a contiguous array of `type`, rounding to nearest even.
inline void store(DType type, void* data, std::ptrdiff_t index, float value) {
  switch (type) {
    case DType::f32:
      static_cast<float*>(data)[index] = value;
      return;
    case DType::f16:
      static_cast<std::uint16_t*>(data)[index] = float_to_f16(value);
      return;
    case DType::bf16:
      static_cast<std::uint16_t*>(data)[index] = float_to_bf16(value);
      return;
  }
  __builtin_unreachable();
}

}  // namespace plait
