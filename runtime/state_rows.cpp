#include "state_rows.hpp"

#include <algorithm>
#include <limits>

namespace plait {
namespace {

/// m, l, then O.
constexpr Index before_o = 2;

Index rows_of(StateView const& state) {
  return state.batch * state.heads * state.rows;
}

void merge_row(float const* from, float* into, Index value_dim) {
  RowMerge const merged = merge_rows(into[0], from[0]);
  into[0] = merged.m;
  for (Index i = 1; i < before_o + value_dim; ++i) into[i] = merged(into[i], from[i]);
}

}  // namespace

std::size_t row_floats(StateView const& state) {
  return static_cast<std::size_t>(rows_of(state) * (before_o + state.value_dim));
}

void pack_rows(StateView const& state, float* rows) {
  for (Index row = 0; row < rows_of(state); ++row, rows += before_o + state.value_dim) {
    bool const identity = state.m == nullptr;
    rows[0] = identity ? -std::numeric_limits<float>::infinity() : state.m[row];
    rows[1] = identity ? 0.0F : state.l[row];
    if (identity) {
      std::fill_n(rows + before_o, state.value_dim, 0.0F);
    } else {
      std::copy_n(state.o + row * state.value_dim, state.value_dim, rows + before_o);
    }
  }
}

void unpack_rows(float const* rows, StateView const& state) {
  for (Index row = 0; row < rows_of(state); ++row, rows += before_o + state.value_dim) {
    state.m[row] = rows[0];
    state.l[row] = rows[1];
    std::copy_n(rows + before_o, state.value_dim, state.o + row * state.value_dim);
  }
}

Operator merge_of_rows(Index value_dim) {
  auto const floats = static_cast<std::size_t>(before_o + value_dim);
  return {.element_bytes = floats * sizeof(float),
          .combine = [=](std::byte const* from, std::byte* into, std::size_t count) {
            for (std::size_t row = 0; row < count; ++row) {
              merge_row(reinterpret_cast<float const*>(from) + row * floats,
                        reinterpret_cast<float*>(into) + row * floats, value_dim);
            }
          }};
}

}  // namespace plait
