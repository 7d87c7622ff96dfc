// Counter-based random numbers: element i of a tensor depends on (seed, tensor, i) alone, so a file is the
// same whatever the number of ranks that write it.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace plait {

/// The finaliser of SplitMix64: a bijection of 64 bits. @see Steele, Lea, Flood 2014
[[nodiscard]] constexpr std::uint64_t mix_bits(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

/// One tensor's numbers.
class RandomTensor {
 public:
  constexpr RandomTensor(std::uint64_t seed, std::uint64_t tensor)
      : key_(mix_bits(mix_bits(seed + golden) + golden * (tensor + 1))) {}

  /// In (0, 1): draw `draw` of element `element`. SplitMix64 at counter 2 · element + draw, from its key.
  [[nodiscard]] constexpr double unit(std::uint64_t element, std::uint64_t draw) const {
    std::uint64_t const bits = mix_bits(key_ + golden * (2 * element + draw + 1));
    return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
  }
  /// Standard normal (Box–Muller).
  [[nodiscard]] double normal(std::uint64_t element) const {
    return std::sqrt(-2.0 * std::log(unit(element, 0))) * std::cos(2.0 * std::numbers::pi * unit(element, 1));
  }
  /// Uniform in (−1, 1).
  [[nodiscard]] constexpr double uniform(std::uint64_t element) const { return 2.0 * unit(element, 0) - 1.0; }

 private:
  static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15u;
  std::uint64_t key_;
};

}  // namespace plait
