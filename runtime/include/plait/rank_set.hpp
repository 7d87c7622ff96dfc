// A set of ranks, as runs of consecutive ones: what a mask lets meet is a few runs, however many ranks there
// are.
#pragma once

#include <vector>

namespace plait {

/// Half-open range of ranks.
struct RankRange {
  int begin = 0;
  int end = 0;
  friend constexpr bool operator==(RankRange, RankRange) = default;
};

class RankSet {
 public:
  RankSet() = default;
  /// @param ranges  in any order; they may overlap, and be empty
  explicit RankSet(std::vector<RankRange> ranges);

  /// Ascending, disjoint, none empty, none that touch.
  [[nodiscard]] std::vector<RankRange> const& ranges() const { return ranges_; }
  [[nodiscard]] bool contains(int rank) const { return count({rank, rank + 1}) > 0; }
  /// How many of them are in the range.
  [[nodiscard]] int count(RankRange within) const;
  /// The largest of them in the range; −1 if none is.
  [[nodiscard]] int last(RankRange within) const;
  /// The last of them on the way once round `ring` from `start`, which lies in it: ranks before `start` come
  /// after the others, and are given as ranks beyond its end. −1 if none is in it.
  [[nodiscard]] int last_around(RankRange ring, int start) const;
  /// The n-th of them, counted from 0; −1 if there are fewer.
  [[nodiscard]] int at(int n) const;

 private:
  std::vector<RankRange> ranges_;
};

}  // namespace plait
