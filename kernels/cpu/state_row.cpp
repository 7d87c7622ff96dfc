#include "state_row.hpp"

#include <algorithm>
#include <limits>

namespace plait::cpu {

void clear_row(StateView const& state, Index row) {
  state.m[row] = -std::numeric_limits<float>::infinity();
  state.l[row] = 0.0f;
  std::fill_n(state.o + row * state.value_dim, state.value_dim, 0.0f);
}

void merge_row(StateView const& from, Index from_row, StateView const& into, Index into_row) {
  Index const dim = into.value_dim;
  float* const o = into.o + into_row * dim;
  float const* const from_o = from.o + from_row * dim;
  RowMerge const merged = merge_rows(into.m[into_row], from.m[from_row]);
  into.l[into_row] = merged(into.l[into_row], from.l[from_row]);
  for (Index d = 0; d < dim; ++d) o[d] = merged(o[d], from_o[d]);
  into.m[into_row] = merged.m;
}

}  // namespace plait::cpu
