// States as rows, (m, l, O) of each side by side: the elements that a reduction combines.
#pragma once

#include "plait/state.hpp"
#include "plait/transport.hpp"

namespace plait {

/// Floats that the rows of a state take; null memory counts too.
[[nodiscard]] std::size_t row_floats(StateView const& state);

/// Writes the state's rows, over batch, heads and rows; the identity in each if its memory is null.
void pack_rows(StateView const& state, float* rows);
/// Reads them back.
void unpack_rows(float const* rows, StateView const& state);

/// The merge of rows whose O has so many elements.
[[nodiscard]] Operator merge_of_rows(Index value_dim);

}  // namespace plait
