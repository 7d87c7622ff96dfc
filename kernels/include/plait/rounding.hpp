// Integers divided and rounded up.
#pragma once

#include <concepts>
#include <type_traits>

namespace plait {

/// How many parts of `by` cover `value`. @pre value ≥ 0, by ≥ 1
template <std::integral T>
[[nodiscard]] constexpr T divided_up(T value, std::type_identity_t<T> by) {
  return (value + by - 1) / by;
}

/// The least multiple of `unit` that is not less. @pre value ≥ 0, unit ≥ 1
template <std::integral T>
[[nodiscard]] constexpr T rounded_up(T value, std::type_identity_t<T> unit) {
  return divided_up(value, unit) * unit;
}

}  // namespace plait
