#include "crowd.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace plait {

void share_cores(std::span<Share> crowd, Machine const& machine) {
  std::vector<double> left;
  double now = std::numeric_limits<double>::infinity();
  for (Share& share : crowd) {
    left.push_back(share.work);
    share.end = share.begin;
    if (share.work > 0) now = std::min(now, share.begin);
  }
  // From one time at which a rank begins or ends to the next.
  while (std::ranges::any_of(left, [](double work) { return work > 0; })) {
    double next = std::numeric_limits<double>::infinity();
    double least_left = next;
    int computing = 0;
    for (std::size_t i = 0; i < crowd.size(); ++i) {
      bool const other = crowd[i].busy_until > now;
      bool const this_one = left[i] > 0 && crowd[i].begin <= now;
      computing += other || this_one ? 1 : 0;
      if (other) next = std::min(next, crowd[i].busy_until);
      if (this_one) least_left = std::min(least_left, left[i]);
      if (left[i] > 0 && crowd[i].begin > now) next = std::min(next, crowd[i].begin);
    }
    double const speed =
        std::min(machine.alone_speedup, static_cast<double>(machine.crowd_ranks) / std::max(1, computing));
    bool const one_ends = now + least_left / speed <= next;
    double const done = one_ends ? least_left : (next - now) * speed;
    now = one_ends ? now + least_left / speed : next;
    for (std::size_t i = 0; i < crowd.size(); ++i) {
      if (left[i] <= 0 || crowd[i].begin >= now) continue;
      left[i] = one_ends && left[i] == least_left ? 0.0 : std::max(0.0, left[i] - done);
      crowd[i].end = now;
    }
  }
}

}  // namespace plait
