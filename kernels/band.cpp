#include "plait/band.hpp"

#include <fmt/format.h>

namespace plait {
namespace {

/// Pairs (i, j), 0 ≤ i < rows, 0 ≤ j < columns, with j − i ≤ d.
/// Row i keeps clamp(i + d + 1, 0, columns) pairs: zero, then a rising run, then full rows.
Index pairs_at_or_below(Index rows, Index columns, Index d) {
  if (d >= columns - 1) return rows * columns;
  if (d < -(rows - 1)) return 0;
  Index const first = std::max<Index>(0, -d);                          // the first row that keeps a pair
  Index const full = std::clamp<Index>(columns - 1 - d, first, rows);  // the first row that keeps all
  Index const rising = full - first;
  Index const ramp = rising * (first + d + 1) + rising * (rising - 1) / 2;
  return ramp + (rows - full) * columns;
}

}  // namespace

Index area(Band const& band) {
  if (band.q.empty() || band.kv.empty() || band.lo > band.hi) return 0;
  Index const offset = band.kv.begin - band.q.begin;  // k − q = j − i + offset
  auto const below = [&](Index diagonal) {
    return pairs_at_or_below(band.q.size(), band.kv.size(), diagonal - offset);
  };
  return below(band.hi) - below(band.lo - 1);
}

Band tighten(Band const& band) {
  Band tight = band;
  // A row q keeps keys in [q + lo, q + hi] ∩ kv; it keeps none unless q + hi ≥ kv.begin and q + lo < kv.end.
  tight.q = intersect(band.q, {band.kv.begin - band.hi, band.kv.end - band.lo});
  tight.kv = intersect(band.kv, {tight.q.begin + band.lo, tight.q.end + band.hi});
  if (tight.q.empty() || tight.kv.empty() || band.lo > band.hi) return {};
  return tight;
}

std::string describe(Band const& band) {
  auto const diagonal = [](Index value, Index absent) {
    return value == absent ? std::string("*") : std::to_string(value);
  };
  return fmt::format("q [{}, {}) kv [{}, {}) lo {} hi {}", band.q.begin, band.q.end, band.kv.begin,
                     band.kv.end, diagonal(band.lo, Band::no_lo), diagonal(band.hi, Band::no_hi));
}

}  // namespace plait
