// Ulysses by heads: a share of the heads at a time, of all tokens at once.
#pragma once

#include <string>

#include "plait/plan.hpp"

namespace plait {

/// Heads are spread over all ranks by an all-to-all, and each rank's own are taken in `stages`: in a round
/// one stage's heads of all tokens come to it, in one block with those that it owns itself (which it copies);
/// in the next they are folded, by one fold if the mask needs all of them, while the next stage's come; and
/// then the outputs go home. So folds are few and start from nothing, and the first exchange and the last
/// one, of a stage's heads each, are all that is not hidden.
/// @param stages  no more than the key/value heads of any rank; ranks ≤ kv_heads
[[nodiscard]] Plan staged_ulysses_plan(Problem const& problem, Layouts const& layouts, std::string name,
                                       int stages, Extent const& extent);

}  // namespace plait
