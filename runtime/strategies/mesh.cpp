// Mesh: ranks in a grid of A × B. Queries are gathered over A ranks, keys and values over B, and states
// return: one head over A·B ranks for about 2·N·D·√(x·y/P) bytes a rank.
#include <fmt/format.h>

#include "head_mesh.hpp"
#include "strategies.hpp"

namespace plait {

namespace {

Grid grid_of(std::string const& name, std::string_view arguments, Shape const& shape, int ranks) {
  return arguments.empty() ? lightest_mesh(shape, ranks) : parse_grid(name, arguments);
}

}  // namespace

double all_keys_bytes(Problem const& problem, int ranks, std::string_view) {
  return mesh_bytes(problem.shape, ranks, {1, ranks});
}

double all_queries_bytes(Problem const& problem, int ranks, std::string_view) {
  return mesh_bytes(problem.shape, ranks, {ranks, 1});
}

double mesh_strategy_bytes(Problem const& problem, int ranks, std::string_view arguments) {
  return mesh_bytes(problem.shape, ranks, grid_of("mesh", arguments, problem.shape, ranks));
}

Plan mesh_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
               Extent const& extent) {
  int const ranks = layouts.q.ranks();
  std::string const name = arguments.empty() ? "mesh" : fmt::format("mesh:{}", arguments);
  Grid const grid = grid_of(name, arguments, problem.shape, ranks);
  if (grid.a * grid.b != ranks) {
    throw InvalidProblem(
        fmt::format("strategy '{}': the grid has {} ranks, not {}", name, grid.a * grid.b, ranks));
  }
  return head_mesh_plan(problem, layouts, fmt::format("mesh:{}x{}", grid.a, grid.b), 1, grid, extent);
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
