#include "mesh_ranks.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace plait {

MeshRanks::MeshRanks(PlanBuilder const& plan, int head_ranks, Grid grid, std::vector<MeshStep> order)
    : u_(head_ranks),
      grid_(grid),
      order_(std::move(order)),
      query_steps_(static_cast<std::size_t>(grid.a)),
      key_steps_(static_cast<std::size_t>(grid.b)),
      written_(plan.written()),
      followed_(static_cast<std::size_t>(groups())),
      beside_(static_cast<std::size_t>(grid.b)),
      above_(static_cast<std::size_t>(grid.a)),
      below_(static_cast<std::size_t>(grid.a * head_ranks)) {
  for (std::size_t index = 0; index < order_.size(); ++index) {
    auto& steps = order_[index].queries ? query_steps_ : key_steps_;
    steps[static_cast<std::size_t>(order_[index].distance)] = index;
  }
  for (int const rank : written_) {
    followed_[static_cast<std::size_t>(group_of(rank))] = 1;
    beside_[static_cast<std::size_t>(row_of(rank))] = 1;
    above_[static_cast<std::size_t>(column_of(rank))] = 1;
    below_[static_cast<std::size_t>(rank % (grid.a * head_ranks))] = 1;
  }
}

int MeshRanks::source(int rank, MeshStep step) const {
  int const group = step.queries ? row_of(rank) * grid_.a + (column_of(rank) + step.distance) % grid_.a
                                 : (row_of(rank) + step.distance) % grid_.b * grid_.a + column_of(rank);
  return group * u_ + share_of(rank);
}

std::vector<std::size_t> MeshRanks::steps_that_matter(int rank) const {
  std::vector<std::size_t> found;
  if (followed(rank)) {
    found.resize(order_.size());
    std::iota(found.begin(), found.end(), std::size_t{0});
    return found;
  }
  for (int const written : written_) {
    int const from = group_of(written) * u_ + share_of(rank);
    bool const row = row_of(from) == row_of(rank);
    if (!row && (from != written || column_of(from) != column_of(rank))) continue;
    int const distance = row ? (column_of(from) - column_of(rank) + grid_.a) % grid_.a
                             : (row_of(from) - row_of(rank) + grid_.b) % grid_.b;
    found.push_back((row ? query_steps_ : key_steps_)[static_cast<std::size_t>(distance)]);
  }
  return ascending(std::move(found));
}

}  // namespace plait
