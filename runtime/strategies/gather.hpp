// Which blocks arrive at a rank, in which round, and how neighbouring ones are gathered into one.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "plait/lists.hpp"
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
  Slice slice;
  std::size_t round;      ///< in which they are sent
  std::size_t count = 1;  ///< arrivals
  std::size_t first = 0;  ///< of them: its index
};

/// What arrivals are gathered into, and by arrival which gathering takes it.
struct Gathered {
  std::vector<Gathering> gatherings;
  std::vector<std::size_t> taken_by;
};

/// @param arrivals  in the order of their rounds
/// @param into      what was in it is dropped, and its memory used again
void gather(std::vector<Arrival> const& arrivals, Gathered& into);

/// The slices; one alone, of 2,048 tokens or more, in two halves.
[[nodiscard]] std::vector<Slice> at_least_two(std::span<Slice const> slices);

/// The slices of each group of so many consecutive ranks, joined where they touch; those of a rank alone as
/// they are.
class JoinedSlices {
 public:
  JoinedSlices(Layout const& layout, int ranks);
  /// Of a group, until another is asked for.
  [[nodiscard]] std::span<Slice const> operator[](int group);

 private:
  static constexpr int none = -1;

  Layout layout_;
  int ranks_;
  std::vector<Slice> joining_;  ///< of the group at hand
  Lists<Slice> joined_;         ///< of groups that have been asked for
  std::vector<int> lists_;      ///< by group: which list is its, or none
};

}  // namespace plait
