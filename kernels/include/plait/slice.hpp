// Token positions and half-open ranges of them: the coordinates that every other file speaks in.
#pragma once

#include <algorithm>
#include <cstdint>

namespace plait {

/// A token position, or a count of tokens. Always 64 bits: sequences pass 2^31 tokens.
using Index = std::int64_t;

/// Half-open range of token positions [begin, end). Queries and keys have separate axes.
struct Slice {
  Index begin = 0;
  Index end = 0;

  [[nodiscard]] constexpr Index size() const { return end > begin ? end - begin : 0; }
  [[nodiscard]] constexpr bool empty() const { return end <= begin; }
  [[nodiscard]] constexpr bool contains(Index position) const { return begin <= position && position < end; }
  [[nodiscard]] constexpr bool contains(Slice other) const {
    return other.empty() || (begin <= other.begin && other.end <= end);
  }
  friend constexpr bool operator==(Slice, Slice) = default;
};

/// The positions in both; {0, 0} if there are none.
[[nodiscard]] constexpr Slice intersect(Slice a, Slice b) {
  Slice const both{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return both.empty() ? Slice{} : both;
}

}  // namespace plait
