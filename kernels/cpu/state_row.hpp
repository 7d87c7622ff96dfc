// Rows of states: one row merged into another, for the device's merges and for keys split over threads.
#pragma once

#include "plait/state.hpp"

namespace plait::cpu {

/// (m, l, O) ← (−inf, 0, 0) for row `row`, counted over batch, heads and rows.
void clear_row(StateView const& state, Index row);

/// into ← into ⊕ from for one row of each.
void merge_row(StateView const& from, Index from_row, StateView const& into, Index into_row);

}  // namespace plait::cpu
