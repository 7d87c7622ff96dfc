// Mesh: ranks in a grid of A × B. Queries are gathered over A ranks, keys and values over B, and states
// return: one head over A·B ranks for about 2·N·D·√(x·y/P) bytes a rank.
#include <fmt/format.h>

#include "head_mesh.hpp"
#include "strategies.hpp"

namespace plait {

Plan mesh_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
               std::span<int const> only) {
  int const ranks = layouts.q.ranks();
  std::string const name = arguments.empty() ? "mesh" : fmt::format("mesh:{}", arguments);
  Grid const grid = arguments.empty() ? lightest_mesh(problem.shape, ranks) : parse_grid(name, arguments);
  if (grid.a * grid.b != ranks) {
    throw InvalidProblem(
        fmt::format("strategy '{}': the grid has {} ranks, not {}", name, grid.a * grid.b, ranks));
  }
  return head_mesh_plan(problem, layouts, fmt::format("mesh:{}x{}", grid.a, grid.b), 1, grid, only);
}

/// Grids that differ from the ring's and pass-Q's bytes: both sides above 1, unless there is no such grid.
std::vector<std::string> mesh_variants(Problem const&, Group const& group) {
  std::vector<std::string> names;
  for (int a = 2; a < group.ranks; ++a) {
    if (group.ranks % a == 0) names.push_back(fmt::format("mesh:{}x{}", a, group.ranks / a));
  }
  if (names.empty()) names.push_back(fmt::format("mesh:{}x1", group.ranks));
  return names;
}

}  // namespace plait
