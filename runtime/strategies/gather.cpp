#include "gather.hpp"

#include <algorithm>

namespace plait {

Gathered gather(std::vector<Arrival> const& arrivals) {
  Gathered gathered;
  auto& [found, taken_by] = gathered;
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
  return gathered;
}

std::vector<Slice> joined(Layout const& layout, int first, int ranks) {
  if (ranks == 1) return layout.slices(first);
  std::vector<Slice> slices;
  for (int rank = first; rank < first + ranks; ++rank) {
    slices.insert(slices.end(), layout.slices(rank).begin(), layout.slices(rank).end());
  }
  std::ranges::sort(slices, {}, &Slice::begin);
  std::vector<Slice> found;
  for (Slice const slice : slices) {
    if (!found.empty() && found.back().end == slice.begin) {
      found.back().end = slice.end;
    } else {
      found.push_back(slice);
    }
  }
  return found;
}

}  // namespace plait
