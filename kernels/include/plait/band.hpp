// A band: a rectangle of (query, key) pairs cut by two diagonals. Every mask is a list of disjoint bands.
#pragma once

#include <limits>
#include <string>

#include "plait/slice.hpp"

namespace plait {

/// Keeps (q, k) iff q ∈ `q`, k ∈ `kv` and lo ≤ k − q ≤ hi.
/// `q` and `kv` are global token positions; `lo` and `hi` are inclusive.
struct Band {
  /// Stand for "no lower (upper) diagonal". A quarter of the range, so that sums of two never overflow.
  static constexpr Index no_lo = std::numeric_limits<Index>::min() / 4;
  static constexpr Index no_hi = std::numeric_limits<Index>::max() / 4;

  Slice q;
  Slice kv;
  Index lo = no_lo;
  Index hi = no_hi;

  [[nodiscard]] constexpr bool keeps(Index q_position, Index k_position) const {
    Index const diagonal = k_position - q_position;
    return q.contains(q_position) && kv.contains(k_position) && lo <= diagonal && diagonal <= hi;
  }
  friend constexpr bool operator==(Band const&, Band const&) = default;
};

/// The pairs in both bands, as one band: rectangles and diagonals intersect component-wise.
[[nodiscard]] constexpr Band intersect(Band const& a, Band const& b) {
  return {.q = intersect(a.q, b.q),
          .kv = intersect(a.kv, b.kv),
          .lo = std::max(a.lo, b.lo),
          .hi = std::min(a.hi, b.hi)};
}

/// The part of the band inside a rectangle of queries and keys.
[[nodiscard]] constexpr Band intersect(Band const& band, Slice q, Slice kv) {
  return intersect(band, Band{.q = q, .kv = kv});
}

/// The number of (q, k) pairs that the band keeps, in closed form (differences of triangular numbers).
/// Exact up to 2^62 pairs (a square of 2^31 tokens).
[[nodiscard]] Index area(Band const& band);

/// The same band with its slices cut to the rows and columns that keep a pair; an empty band becomes {}.
[[nodiscard]] Band tighten(Band const& band);

/// "q [0, 8) kv [0, 8) lo -3 hi 0", with * for an absent diagonal: for messages.
[[nodiscard]] std::string describe(Band const& band);

}  // namespace plait
