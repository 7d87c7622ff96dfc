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

Lists<Slice> joined(Layout const& layout, int ranks) {
  Lists<Slice> found;
  std::vector<Slice> slices;
  for (int first = 0; first < layout.ranks(); first += ranks) {
    slices.clear();
    for (int rank = first; rank < first + ranks; ++rank) {
      slices.insert(slices.end(), layout.slices(rank).begin(), layout.slices(rank).end());
    }
    if (ranks > 1) {
      if (!std::ranges::is_sorted(slices, {}, &Slice::begin)) std::ranges::sort(slices, {}, &Slice::begin);
      join_neighbours(slices);
    }
    found.add_all(slices);
    found.end_list();
  }
  return found;
}

}  // namespace plait
