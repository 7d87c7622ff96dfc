// What a mask makes the ranks of a mesh need of each other.
#pragma once

#include "gather.hpp"
#include "mesh_ranks.hpp"

namespace plait {

/// Which tokens have to come to which rank. The mask and the places outlive it.
class MeshNeeds {
 public:
  MeshNeeds(Mask const& mask, Layouts const& layouts, MeshRanks const& places, int head_ranks, Grid grid);

  /// Whether queries have anything to see among the keys that come to a rank.
  [[nodiscard]] bool queries(int rank, Slice q);
  /// Whether any queries that come to a rank see some of these keys.
  [[nodiscard]] bool keys(int rank, Slice kv);
  /// Whether a step has to bring a slice to a rank.
  [[nodiscard]] bool comes(int rank, MeshStep step, Slice slice) {
    return step.queries ? queries(rank, slice) : keys(rank, slice);
  }
  /// Whether a step brings anything to a rank.
  [[nodiscard]] bool brings(int rank, MeshStep step);
  /// The last of the steps that brings anything to any rank, plus 1.
  [[nodiscard]] std::size_t steps_used(std::vector<MeshStep> const& order);
  /// The keys of a group, joined where they touch, until another's are asked for.
  [[nodiscard]] std::span<Slice const> keys_of(int group) { return kv_[group]; }

 private:
  Mask const& mask_;
  MeshRanks const& places_;
  int u_;
  Grid grid_;
  JoinedSlices q_;  ///< by group
  JoinedSlices kv_;
  JoinedSlices row_q_;  ///< by row of the mesh
};

}  // namespace plait
