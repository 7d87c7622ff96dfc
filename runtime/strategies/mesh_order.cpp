#include "mesh_order.hpp"

#include <algorithm>
#include <cmath>

#include "plait/rounding.hpp"

namespace plait {

std::vector<MeshStep> mesh_order(Shape const& shape, Grid grid) {
  auto const e = static_cast<double>(size_bytes(shape.dtype));
  auto const dims = static_cast<double>(shape.head_dim + shape.value_dim);
  double const kv = static_cast<double>(shape.kv_heads) * dims * e;
  double const there_and_back =
      static_cast<double>(shape.q_heads) *
      (static_cast<double>(shape.head_dim) * e + static_cast<double>(shape.value_dim + 2) * sizeof(float));
  // Folds in step with bytes: queries up to this distance come before, or among, the keys.
  double const all_keys = (grid.b - 1) * kv;
  double const all = all_keys + (grid.a - 1) * there_and_back;
  int const early =
      grid.a == 1 ? 0 : std::clamp(static_cast<int>(std::lround(grid.a * all_keys / all)), 1, grid.a - 1);
  std::vector<MeshStep> found;
  int q = 1;
  int k = 1;
  while (q <= early || k < grid.b) {
    // The q-th comes before a share of q / early of the keys.
    bool const queries = q <= early && (k >= grid.b || (q - 1) * (grid.b - 1) <= (k - 1) * early);
    found.push_back({queries, queries ? q++ : k++});
  }
  for (; q < grid.a; ++q) found.push_back({true, q});
  return found;
}

std::size_t steps_per_round(std::size_t steps, Index tokens, Index most_rounds) {
  constexpr Index tokens_a_round = 1024;
  if (steps == 0) return 1;
  auto const rounds = static_cast<std::size_t>(std::clamp<Index>(tokens / tokens_a_round, 1, most_rounds));
  return divided_up(steps, rounds);
}

}  // namespace plait
