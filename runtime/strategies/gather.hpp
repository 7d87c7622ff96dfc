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

/// Arrivals whose slices touch: they lie as one block in one slot, so that one fold takes them all.
struct Gathering {
  std::vector<Arrival> arrivals;  ///< in the order of their rounds
  Slice slice;
  [[nodiscard]] std::size_t first_round() const { return arrivals.front().round; }
  [[nodiscard]] std::size_t ready() const { return arrivals.back().round + 1; }
};

/// Gathers arrivals (in the order of their rounds) that touch, each gathering within `span` rounds: the
/// longer, the larger the folds; the shorter, the sooner they start.
[[nodiscard]] std::vector<Gathering> gather(std::vector<Arrival> const& arrivals, std::size_t span);

}  // namespace plait
