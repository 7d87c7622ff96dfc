#include "gather.hpp"

#include <algorithm>

namespace plait {

std::vector<Gathering> gather(std::vector<Arrival> const& arrivals) {
  std::vector<Gathering> found;
  for (Arrival const& arrival : arrivals) {
    auto const open = std::ranges::find_if(found, [&](Gathering const& gathering) {
      return gathering.arrivals.front().round == arrival.round &&
             (gathering.slice.end == arrival.slice.begin || arrival.slice.end == gathering.slice.begin);
    });
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
