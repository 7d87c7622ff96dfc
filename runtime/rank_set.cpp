#include "plait/rank_set.hpp"

#include <algorithm>

namespace plait {
namespace {

RankRange intersect(RankRange a, RankRange b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

}  // namespace

RankSet::RankSet(std::vector<RankRange> ranges) {
  std::ranges::sort(ranges, {}, &RankRange::begin);
  for (RankRange const range : ranges) {
    if (range.begin >= range.end) continue;
    if (!ranges_.empty() && ranges_.back().end >= range.begin) {
      ranges_.back().end = std::max(ranges_.back().end, range.end);
    } else {
      ranges_.push_back(range);
    }
  }
}

int RankSet::count(RankRange within) const {
  int sum = 0;
  for (RankRange const range : ranges_) {
    auto const [begin, end] = intersect(range, within);
    sum += std::max(0, end - begin);
  }
  return sum;
}

int RankSet::last(RankRange within) const {
  int found = -1;
  for (RankRange const range : ranges_) {
    auto const [begin, end] = intersect(range, within);
    if (begin < end) found = end - 1;
  }
  return found;
}

int RankSet::last_around(RankRange ring, int start) const {
  int const wrapped = last({ring.begin, start});
  return wrapped >= 0 ? wrapped + ring.end - ring.begin : last({start, ring.end});
}

int RankSet::at(int n) const {
  for (auto const [begin, end] : ranges_) {
    if (n < end - begin) return begin + n;
    n -= end - begin;
  }
  return -1;
}

}  // namespace plait
