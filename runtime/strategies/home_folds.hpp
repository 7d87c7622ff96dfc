// What a rank folds of its own keys into its own queries: a part while the queries travel, the rest while
// their states come back.
#pragma once

#include <span>
#include <vector>

#include "plait/plan_builder.hpp"

namespace plait {

/// Query and key/value blocks of one rank, both at rest.
struct HomeFold {
  BlockId q;
  BlockId kv;
};

struct HomeFolds {
  std::vector<HomeFold> first;  ///< a fifth of the kept pairs or more, as states are heavier than queries
  /// The rest: nothing if few pairs are kept, no query leaves, or none can come.
  std::vector<HomeFold> last;
  /// How many ranks on the last one is that any of the queries goes to; 0 if they stay.
  int farthest = 0;
  bool alone = false;  ///< no other rank has queries
};

/// All pairs of blocks of `rank` that meet.
[[nodiscard]] std::vector<HomeFold> meetings(PlanBuilder& plan, int rank);
/// The same, of a rank that is written, in two parts. A pair of blocks that is all there is to fold is cut by
/// its keys.
[[nodiscard]] HomeFolds home_folds(PlanBuilder& plan, int rank);
/// Folds them in this round.
void fold_all(PlanBuilder& plan, std::span<HomeFold const> folds);

}  // namespace plait
