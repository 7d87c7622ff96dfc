// Which blocks arrive at a rank, in which round, and how neighbouring ones are gathered into one.
#pragma once

#include <cstddef>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

/// A block that comes to a rank.
struct Arrival {
  std::size_t round;  ///< in which it is sent
  int from;
  std::size_t piece;  ///< of the sender's own: where it lies there
  BlockId block;
  Slice slice;
};

/// Arrivals of one round whose slices touch: they lie as one block in one slot, so that one fold takes them
/// all.
struct Gathering {
  std::vector<Arrival> arrivals;
  Slice slice;
  /// The first round in which it can be used.
  [[nodiscard]] std::size_t ready() const { return arrivals.front().round + 1; }
};

/// @param arrivals  in the order of their rounds
[[nodiscard]] std::vector<Gathering> gather(std::vector<Arrival> const& arrivals);

/// The slices of `ranks` ranks from `first` on, joined where they touch.
[[nodiscard]] std::vector<Slice> joined(Layout const& layout, int first, int ranks);

}  // namespace plait
