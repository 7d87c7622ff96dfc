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
  [[nodiscard]] int share_of(int rank) const { return at(rank).share; }
  [[nodiscard]] int group_of(int rank) const { return at(rank).group; }
  [[nodiscard]] int row_of(int rank) const { return at(rank).row; }
  [[nodiscard]] int column_of(int rank) const { return at(rank).column; }

  [[nodiscard]] std::vector<MeshStep> const& order() const { return order_; }
  /// Which of them brings keys from that distance, at least 1.
  [[nodiscard]] std::size_t key_step(int distance) const {
    return key_steps_[static_cast<std::size_t>(distance)];
  }
  /// Where a step's pieces come from.
  [[nodiscard]] int source(int rank, MeshStep step) const;

  /// Ranks whose every step is followed: those of the groups of ranks that are written, as outputs go to and
  /// fro there.
  [[nodiscard]] bool followed(int rank) const { return at(rank).followed; }
  /// Ranks in the same row of the mesh: they return states to those that are followed.
  [[nodiscard]] bool beside(int rank) const { return at(rank).beside; }
  /// Ranks in the same row with the same heads: they get queries from those that are written, or send them
  /// theirs.
  [[nodiscard]] bool along(int rank) const { return at(rank).along; }
  /// Ranks in the same column: they send keys to those that are followed.
  [[nodiscard]] bool above(int rank) const { return at(rank).above; }
  /// Ranks in the same column with the same heads: they get keys from those that are written.
  [[nodiscard]] bool below(int rank) const { return at(rank).below; }
  /// The steps, ascending, that bring something to a rank that is followed, or queries from one that is, or
  /// keys from one that is written.
  [[nodiscard]] std::vector<std::size_t> steps_that_matter(int rank) const;

 private:
  struct Place {
    int group = 0;
    int row = 0;
    int column = 0;
    int share = 0;
    bool followed = false;
    bool beside = false;
    bool along = false;
    bool above = false;
    bool below = false;
  };
  [[nodiscard]] Place const& at(int rank) const { return places_[static_cast<std::size_t>(rank)]; }
  void list_places();
  void mark();

  int u_;
  Grid grid_;
  std::vector<MeshStep> order_;
  std::vector<std::size_t> query_steps_;  ///< by distance in a: the step that brings those queries
  std::vector<std::size_t> key_steps_;    ///< by distance in b
  std::vector<int> written_;
  std::vector<Place> places_;  ///< by rank
};

}  // namespace plait
