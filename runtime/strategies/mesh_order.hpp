// In which order queries and keys come to a rank of a mesh, and how many of them in a round.
#pragma once

#include <cstddef>
#include <vector>

#include "grid.hpp"
#include "plait/problem.hpp"

namespace plait {

/// From which neighbour queries come (a distance in a), or keys (in b).
struct MeshStep {
  bool queries;
  int distance;
};

/// All steps of a grid: queries lead, and come in step with the keys that they meet, so that folds keep up
/// with bytes.
[[nodiscard]] std::vector<MeshStep> mesh_order(Shape const& shape, Grid grid);

/// How many of `steps`, in which so many tokens come in all, make a round: few, so that folds start early,
/// but in each round some thousand tokens come, so that folds are large, and there are few rounds.
[[nodiscard]] std::size_t steps_per_round(std::size_t steps, Index tokens, Index most_rounds);

}  // namespace plait
