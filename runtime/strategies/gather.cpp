#include "gather.hpp"

#include <algorithm>

#include "plait/plan_builder.hpp"

namespace plait {

void gather(std::vector<Arrival> const& arrivals, Gathered& into) {
  auto& [found, taken_by] = into;
  found.clear();
  taken_by.clear();
  taken_by.reserve(arrivals.size());
  std::size_t first = 0;  // gathering of the round at hand
  for (Arrival const& arrival : arrivals) {
    if (!found.empty() && found.back().round != arrival.round) first = found.size();
    auto const open = std::find_if(
        found.begin() + static_cast<std::ptrdiff_t>(first), found.end(), [&](Gathering const& gathering) {
          return gathering.slice.end == arrival.slice.begin || arrival.slice.end == gathering.slice.begin;
        });
    taken_by.push_back(static_cast<std::size_t>(open - found.begin()));
    if (open == found.end()) {
      found.push_back({.slice = arrival.slice, .round = arrival.round, .first = taken_by.size() - 1});
      continue;
    }
    ++open->count;
    open->slice = {std::min(open->slice.begin, arrival.slice.begin),
                   std::max(open->slice.end, arrival.slice.end)};
  }
}

std::vector<Slice> at_least_two(std::span<Slice const> slices) {
  constexpr Index long_enough = 2048;
  if (slices.size() != 1 || slices[0].size() < long_enough) return {slices.begin(), slices.end()};
  Index const middle = cut_of(slices[0], 1, 2);
  return {{slices[0].begin, middle}, {middle, slices[0].end}};
}

namespace {

/// Joins slices where they touch, those that are neighbours in the list alone.
void join_neighbours(std::vector<Slice>& slices) {
  std::size_t kept = 0;
  for (Slice const slice : slices) {
    if (kept > 0 && slices[kept - 1].end == slice.begin) {
      slices[kept - 1].end = slice.end;
    } else {
      slices[kept++] = slice;
    }
  }
  slices.resize(kept);
}

}  // namespace

JoinedSlices::JoinedSlices(Layout const& layout, int ranks)
    : layout_(layout), ranks_(ranks), lists_(static_cast<std::size_t>(layout.ranks() / ranks), none) {}

std::span<Slice const> JoinedSlices::operator[](int group) {
  int& list = lists_[static_cast<std::size_t>(group)];
  if (list == none) {
    list = static_cast<int>(joined_.size());
    joining_.clear();
    for (int rank = group * ranks_; rank < (group + 1) * ranks_; ++rank) {
      joining_.insert(joining_.end(), layout_.slices(rank).begin(), layout_.slices(rank).end());
    }
    if (ranks_ > 1) {
      if (!std::ranges::is_sorted(joining_, {}, &Slice::begin))
        std::ranges::sort(joining_, {}, &Slice::begin);
      join_neighbours(joining_);
    }
    joined_.add_all(joining_);
    joined_.end_list();
  }
  return joined_[static_cast<std::size_t>(list)];
}

}  // namespace plait
