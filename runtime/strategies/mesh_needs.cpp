#include "mesh_needs.hpp"

#include <algorithm>

namespace plait {

MeshNeeds::MeshNeeds(Mask const& mask, Layouts const& layouts, MeshRanks const& places, int head_ranks,
                     Grid grid)
    : mask_(mask),
      places_(places),
      u_(head_ranks),
      grid_(grid),
      q_(layouts.q, head_ranks),
      kv_(layouts.kv, head_ranks),
      row_q_(layouts.q, grid.a * head_ranks) {}

bool MeshNeeds::queries(int rank, Slice q) {
  for (int row = 0; row < grid_.b; ++row) {
    auto const keys = kv_[row * grid_.a + places_.column_of(rank)];
    if (std::ranges::any_of(keys, [&](Slice kv) { return mask_.meets(q, kv); })) return true;
  }
  return false;
}

bool MeshNeeds::keys(int rank, Slice kv) {
  return std::ranges::any_of(row_q_[places_.row_of(rank)], [&](Slice q) { return mask_.meets(q, kv); });
}

bool MeshNeeds::brings(int rank, MeshStep step) {
  int const from = places_.group_of(places_.source(rank, step));
  return std::ranges::any_of(step.queries ? q_[from] : kv_[from],
                             [&](Slice slice) { return comes(rank, step, slice); });
}

std::size_t MeshNeeds::steps_used(std::vector<MeshStep> const& order) {
  for (std::size_t used = order.size(); used > 0; --used) {
    for (int group = 0; group < places_.groups(); ++group) {
      if (brings(group * u_, order[used - 1])) return used;
    }
  }
  return 0;
}

}  // namespace plait
