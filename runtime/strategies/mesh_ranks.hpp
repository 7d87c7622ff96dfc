// Where ranks are in a mesh of groups that share heads, and which of them matter to those whose programs are
// written.
#pragma once

#include <vector>

#include "mesh_order.hpp"
#include "plait/plan_builder.hpp"

namespace plait {

/// Groups of `head_ranks` consecutive ranks, in rows of grid.a groups and columns of grid.b.
class MeshRanks {
 public:
  /// @param order  the steps in which queries and keys come
  MeshRanks(PlanBuilder const& plan, int head_ranks, Grid grid, std::vector<MeshStep> order);

  [[nodiscard]] int groups() const { return grid_.a * grid_.b; }
  [[nodiscard]] int share_of(int rank) const { return rank % u_; }
  [[nodiscard]] int group_of(int rank) const { return rank / u_; }
  [[nodiscard]] int row_of(int rank) const { return group_of(rank) / grid_.a; }
  [[nodiscard]] int column_of(int rank) const { return group_of(rank) % grid_.a; }

  [[nodiscard]] std::vector<MeshStep> const& order() const { return order_; }
  /// Where a step's pieces come from.
  [[nodiscard]] int source(int rank, MeshStep step) const;

  /// Ranks whose every step is followed: those of the groups of ranks that are written, as outputs go to and
  /// fro there.
  [[nodiscard]] bool followed(int rank) const { return has(followed_, group_of(rank)); }
  /// Ranks in the same row of the mesh: they return states to those that are followed.
  [[nodiscard]] bool beside(int rank) const { return has(beside_, row_of(rank)); }
  /// Ranks in the same column: they send keys to those that are followed.
  [[nodiscard]] bool above(int rank) const { return has(above_, column_of(rank)); }
  /// Ranks in the same column with the same heads: they get keys from those that are written.
  [[nodiscard]] bool below(int rank) const { return has(below_, rank % (grid_.a * u_)); }
  /// The steps, ascending, that bring something to a rank that is followed, or queries from one that is, or
  /// keys from one that is written.
  [[nodiscard]] std::vector<std::size_t> steps_that_matter(int rank) const;

 private:
  static bool has(std::vector<char> const& flags, int index) {
    return flags[static_cast<std::size_t>(index)] != 0;
  }

  int u_;
  Grid grid_;
  std::vector<MeshStep> order_;
  std::vector<std::size_t> query_steps_;  ///< by distance in a: the step that brings those queries
  std::vector<std::size_t> key_steps_;    ///< by distance in b
  std::vector<int> written_;
  std::vector<char> followed_;  ///< by group
  std::vector<char> beside_;    ///< by row of the mesh
  std::vector<char> above_;     ///< by column of the mesh
  std::vector<char> below_;     ///< by column of the mesh and share of the heads
};

}  // namespace plait
