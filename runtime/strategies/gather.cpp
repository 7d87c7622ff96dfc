#include "gather.hpp"

#include <algorithm>

namespace plait {

std::vector<Gathering> gather(std::vector<Arrival> const& arrivals, std::size_t span) {
  std::vector<Gathering> found;
  for (Arrival const& arrival : arrivals) {
    auto const touches = [&](Gathering const& open) {
      bool const in_time = arrival.round < open.first_round() + span;
      return in_time && (open.slice.end == arrival.slice.begin || arrival.slice.end == open.slice.begin);
    };
    auto const open = std::ranges::find_if(found, touches);
    if (open == found.end()) {
      found.push_back({{arrival}, arrival.slice});
      continue;
    }
    open->arrivals.push_back(arrival);
    open->slice = {std::min(open->slice.begin, arrival.slice.begin),
                   std::max(open->slice.end, arrival.slice.end)};
  }
  return found;
}

}  // namespace plait
