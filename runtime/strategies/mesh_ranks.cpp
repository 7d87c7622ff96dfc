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
      written_(plan.written()) {
  for (std::size_t index = 0; index < order_.size(); ++index) {
    auto& steps = order_[index].queries ? query_steps_ : key_steps_;
    steps[static_cast<std::size_t>(order_[index].distance)] = index;
  }
  list_places();
  mark();
}

void MeshRanks::list_places() {
  places_.reserve(static_cast<std::size_t>(groups() * u_));
  for (int row = 0; row < grid_.b; ++row) {
    for (int column = 0; column < grid_.a; ++column) {
      int const group = row * grid_.a + column;
      for (int share = 0; share < u_; ++share) places_.push_back({group, row, column, share});
    }
  }
}

void MeshRanks::mark() {
  std::vector<char> followed(static_cast<std::size_t>(groups()));
  std::vector<char> beside(static_cast<std::size_t>(grid_.b));
  std::vector<char> along(static_cast<std::size_t>(grid_.b * u_));
  std::vector<char> above(static_cast<std::size_t>(grid_.a));
  std::vector<char> below(static_cast<std::size_t>(grid_.a * u_));
  auto const flag = [](std::vector<char>& flags, int index) -> char& {
    return flags[static_cast<std::size_t>(index)];
  };
  for (int const rank : written_) {
    auto const& place = at(rank);
    flag(followed, place.group) = flag(beside, place.row) = flag(above, place.column) = 1;
    flag(along, place.row * u_ + place.share) = flag(below, place.column * u_ + place.share) = 1;
  }
  for (Place& place : places_) {
    place.followed = flag(followed, place.group) != 0;
    place.beside = flag(beside, place.row) != 0;
    place.along = flag(along, place.row * u_ + place.share) != 0;
    place.above = flag(above, place.column) != 0;
    place.below = flag(below, place.column * u_ + place.share) != 0;
  }
}

int MeshRanks::source(int rank, MeshStep step) const {
  auto const& place = at(rank);
  auto const after = [&](int index, int size) {
    int const next = index + step.distance;
    return next < size ? next : next - size;
  };
  int const group = step.queries ? place.row * grid_.a + after(place.column, grid_.a)
                                 : after(place.row, grid_.b) * grid_.a + place.column;
  return group * u_ + place.share;
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
