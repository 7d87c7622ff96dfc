// The mesh, Ulysses, and their product.
#pragma once

#include <span>
#include <string>

#include "grid.hpp"
#include "plait/plan.hpp"

namespace plait {

/// Heads are spread over groups of `head_ranks` consecutive ranks (Ulysses): an all-to-all gives each the
/// tokens of its group for its share of the heads, and takes the output rows back. The ranks of all groups
/// with the same heads then form a mesh of `grid.a` × `grid.b`: queries are gathered over `a` of them and
/// keys and values over `b`, so that each folds (queries of a) × (keys of b), and the states go back to where
/// their queries came from, to be merged. head_ranks · a · b = the ranks of the layouts; head_ranks ≤
/// kv_heads.
///
/// Folds start after the first arrival. Rows that came from others are folded first, and their states return
/// while the rank's own rows are folded; keys come after half of the queries (where the states that return
/// are as heavy as the keys), so that folds are at hand from the first rounds on and states leave before the
/// last ones.
[[nodiscard]] Plan head_mesh_plan(Problem const& problem, Layouts const& layouts, std::string name,
                                  int head_ranks, Grid grid, Extent const& extent);

}  // namespace plait
