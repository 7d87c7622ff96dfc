// What every device's folds must do. Each check is one test's body.
#pragma once

#include <algorithm>
#include <cstring>

#include "fold_case.hpp"

namespace plait::test {

using Keeps = std::function<bool(Index, Index)>;

inline testing::Message describe(Case const& shape) {
  return testing::Message() << shape.q_rows << " × " << shape.kv_rows << " rows, " << shape.q_heads << ':'
                            << shape.kv_heads << " heads, D " << shape.dim << ", Dv " << shape.value_dim
                            << ", batch " << shape.batch << ", rows padded in units of "
                            << shape.padding_unit;
}

inline void expect_same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

/// One fold of everything and a finish, judged; then one fold that finishes, which must give the same bits if
/// it is by the same kernel (another one adds in another order), and is judged otherwise.
inline void check(Device& device, DType dtype, Case const& shape, std::vector<Band> const& bands,
                  Keeps const& keeps, float scale_factor = 1.0f) {
  SCOPED_TRACE(describe(shape));
  Tensors tensors(device, dtype, shape, 7);
  tensors.scale *= scale_factor;
  GuardedState state(device, shape);
  std::string const kernel = fold(device, tensors, bands, {0, shape.kv_rows}, state.view(), Start::identity);
  state.expect_guarded();
  device.finish(state.view(), tensors.output(device));
  expect_oracle(device, shape, tensors, keeps);

  Tensors fused(device, dtype, shape, 7);
  fused.scale *= scale_factor;
  std::string const fused_kernel =
      fold(device, fused, bands, {0, shape.kv_rows}, state.view(), Start::identity, fused.output(device));
  state.expect_guarded();
  fused.lse.expect_guarded();
  if (fused_kernel != kernel) return expect_oracle(device, shape, fused, keeps);
  fused.out.fetch(device);
  fused.out.expect_padding_untouched();
  for (Index b = 0; b < shape.batch; ++b) {
    for (Index row = 0; row < shape.q_rows; ++row) {
      ASSERT_EQ(std::memcmp(fused.out.view().at(b, row, 0), tensors.out.view().at(b, row, 0),
                            static_cast<std::size_t>(shape.q_heads * shape.value_dim) * size_bytes(dtype)),
                0)
          << "the fused output differs from fold and finish in row " << row;
    }
  }
  expect_same_bits(fused.lse.floats(), tensors.lse.floats());
}

inline void check_full_and_causal(Device& device, DType dtype, Case const& shape) {
  check(device, dtype, shape, {full(shape)}, [](Index, Index) { return true; });
  Index const shift = shape.kv_rows - shape.q_rows;
  Band causal = full(shape);
  causal.hi = shift;
  check(device, dtype, shape, {causal}, [shift](Index q, Index k) { return k - q <= shift; });
}

inline void check_bands(Device& device, DType dtype, Case shape) {
  shape.q_rows = 300;
  shape.kv_rows = 400;
  // Attention sink and window: two bands over the same rows; and rows 250 to 299 see nothing.
  std::vector<Band> const bands{{.q = {0, 250}, .kv = {0, 10}},
                                {.q = {0, 250}, .kv = {10, 400}, .lo = 30, .hi = 77}};
  check(device, dtype, shape, bands,
        [](Index q, Index k) { return q < 250 && (k < 10 || (30 <= k - q && k - q <= 77)); });
  // A chequerboard of blocks.
  std::vector<Band> blocks;
  for (Index q = 0; q < 300; q += 50) {
    for (Index k = 0; k < 400; k += 40) {
      if ((q / 50 + k / 40) % 2 == 0) blocks.push_back({.q = {q, q + 50}, .kv = {k, k + 40}});
    }
  }
  check(device, dtype, shape, blocks, [](Index q, Index k) { return (q / 50 + k / 40) % 2 == 0; });
}

/// @param times  as many keys
inline void check_carried_in_any_order(Device& device, DType dtype, Case shape, Index times = 1) {
  shape.q_rows = 210;
  shape.kv_rows = 330 * times;
  Index const a = 100 * times;
  Band causal = full(shape);
  causal.hi = shape.kv_rows - shape.q_rows;
  for (std::vector<Slice> const& order : {std::vector<Slice>{{0, a}, {a, a + 1}, {a + 1, shape.kv_rows}},
                                          {{a + 1, shape.kv_rows}, {0, a}, {a, a + 1}}}) {
    for (bool const fused : {false, true}) {
      Tensors tensors(device, dtype, shape, 7);
      GuardedState state(device, shape);
      for (std::size_t hop = 0; hop < order.size(); ++hop) {
        Start const start = hop == 0 ? Start::identity : Start::carried;
        std::optional<Output> output;
        if (fused && hop + 1 == order.size()) output = tensors.output(device);
        fold(device, tensors, std::span(&causal, 1), order[hop], state.view(), start, output);
      }
      state.expect_guarded();
      if (!fused) device.finish(state.view(), tensors.output(device));
      expect_oracle(device, shape, tensors, [&](Index q, Index k) { return k - q <= causal.hi; });
    }
  }
}

/// Many short folds queued at once, by turns on two states, in opposite orders of the keys: each may begin
/// while the one before it ends, and none may read a state too early.
inline void check_queued_folds(Device& device, DType dtype, Case shape) {
  constexpr Index slices = 24;
  Tensors tensors(device, dtype, shape, 13);
  Band causal = full(shape);
  causal.hi = shape.kv_rows - shape.q_rows;
  MutableTensorView const q = tensors.q.on(device);
  std::vector<Slice> keys;
  std::vector<std::unique_ptr<FoldPlan>> first_plans;
  std::vector<std::unique_ptr<FoldPlan>> plans;
  for (Index slice = 0; slice < slices; ++slice) {
    keys.push_back({slice * shape.kv_rows / slices, (slice + 1) * shape.kv_rows / slices});
    for (Start const start : {Start::identity, Start::carried}) {
      (start == Start::identity ? first_plans : plans)
          .push_back(prepare(device, tensors, std::span(&causal, 1), keys.back(), start, false));
    }
  }
  GuardedState up(device, shape);
  GuardedState down(device, shape);
  MutableTensorView const k = tensors.k.on(device);
  MutableTensorView const v = tensors.v.on(device);
  std::vector<float> first;
  for (int repeat = 0; repeat < 4; ++repeat) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      for (auto const& [state, at] : {std::pair{up.view(), i}, {down.view(), keys.size() - 1 - i}}) {
        device.fold(*(i == 0 ? first_plans : plans)[at], {.q = q,
                                                          .k = k.rows_of(keys[at]),
                                                          .v = v.rows_of(keys[at]),
                                                          .state = state,
                                                          .scale = tensors.scale});
      }
    }
    for (GuardedState const& state : {std::cref(up), std::cref(down)}) {
      device.finish(state.view(), tensors.output(device));
      expect_oracle(device, shape, tensors, [&](Index row, Index key) { return key - row <= causal.hi; });
      state.expect_guarded();
    }
    if (repeat == 0) first = up.floats();
    expect_same_bits(first, up.floats());
  }
}

inline void check_merged_states(Device& device, DType dtype, Case shape) {
  shape.q_rows = 90;
  shape.kv_rows = 200;
  Band causal = full(shape);
  causal.hi = 50;
  std::span<Band const> const bands(&causal, 1);
  Tensors tensors(device, dtype, shape, 9);
  GuardedState left(device, shape);
  GuardedState right(device, shape);
  GuardedState all(device, shape);
  fold(device, tensors, bands, {0, 80}, left.view(), Start::identity);
  fold(device, tensors, bands, {80, 200}, right.view(), Start::identity);  // the first rows see none of these
  device.merge(left.view(), all.view(), Start::identity);
  expect_same_bits(left.floats(), all.floats());
  device.merge(right.view(), all.view(), Start::carried);
  all.expect_guarded();
  device.finish(all.view(), tensors.output(device));
  expect_oracle(device, shape, tensors, [](Index q, Index k) { return k - q <= 50; });
}

inline void check_unseen_rows_stay(Device& device, DType dtype, Case shape) {
  shape.q_rows = 100;
  shape.kv_rows = 60;
  Tensors tensors(device, dtype, shape, 3);
  GuardedState state(device, shape);
  Band const all = full(shape);
  fold(device, tensors, std::span(&all, 1), {0, 60}, state.view(), Start::identity);
  std::vector<float> const before = state.floats();
  Band const some{.q = {20, 50}, .kv = {0, 60}};
  fold(device, tensors, std::span(&some, 1), {0, 60}, state.view(), Start::carried);
  std::vector<float> const after = state.floats();
  for (Index row = 0; row < shape.q_rows; ++row) {
    auto const offset = static_cast<std::size_t>(2 * shape.q_rows + row * shape.value_dim);
    bool const same = std::memcmp(before.data() + offset, after.data() + offset,
                                  static_cast<std::size_t>(shape.value_dim) * sizeof(float)) == 0;
    EXPECT_EQ(same, row < 20 || row >= 50) << row;
  }
}

/// What no row of a fold sees is not read into it: keys after the last diagonal may hold anything.
inline void check_unseen_keys_may_be_nan(Device& device, DType dtype, Case shape) {
  shape.q_rows = 64;
  shape.kv_rows = 100;
  Tensors tensors(device, dtype, shape, 3);
  for (Index row = 70; row < 100; ++row) {
    for (Index d = 0; d < shape.dim; ++d) store(dtype, tensors.k.view().at(0, row, 0), d, nan);
    for (Index d = 0; d < shape.value_dim; ++d) store(dtype, tensors.v.view().at(0, row, 0), d, nan);
  }
  GuardedState state(device, shape);
  Band causal = full(shape);
  causal.hi = 6;  // the last row sees keys 0 to 69
  fold(device, tensors, std::span(&causal, 1), {0, 100}, state.view(), Start::identity);
  device.finish(state.view(), tensors.output(device));
  tensors.out.fetch(device);
  for (Index row = 0; row < 64; ++row) {
    for (Index d = 0; d < shape.value_dim; ++d)
      ASSERT_TRUE(std::isfinite(load(dtype, tensors.out.view().at(0, row, 0), d))) << row;
  }
}

inline void check_nan_inputs_show(Device& device, DType dtype, Case shape) {
  shape.q_rows = 10;
  shape.kv_rows = std::max<Index>(shape.kv_rows, 40);
  Tensors tensors(device, dtype, shape, 3);
  store(dtype, tensors.q.view().at(0, 4, 0), 2, nan);
  GuardedState state(device, shape);
  Band const all = full(shape);
  fold(device, tensors, std::span(&all, 1), {0, shape.kv_rows}, state.view(), Start::identity);
  device.finish(state.view(), tensors.output(device));
  tensors.out.fetch(device);
  for (Index row = 0; row < 10; ++row) {
    EXPECT_EQ(std::isnan(load(dtype, tensors.out.view().at(0, row, 0), 0)), row == 4) << row;
  }
}

/// The state after a fold and a carried one, for comparisons bit for bit.
inline std::vector<float> folded_twice(Device& device, DType dtype, Case const& shape) {
  Band causal = full(shape);
  causal.hi = 0;
  Tensors tensors(device, dtype, shape, 5);
  GuardedState state(device, shape);
  fold(device, tensors, std::span(&causal, 1), {0, shape.kv_rows}, state.view(), Start::identity);
  fold(device, tensors, std::span(&causal, 1), {0, shape.kv_rows}, state.view(), Start::carried);
  return state.floats();
}

inline void check_identity_finishes_as_nothing(Device& device) {
  Case const shape{.q_rows = 2, .q_heads = 3, .value_dim = 4};
  Tensors tensors(device, DType::f32, shape, 1);
  device.finish({.batch = 1, .heads = 3, .rows = 2, .value_dim = 4}, tensors.output(device));
  tensors.out.fetch(device);
  tensors.out.expect_padding_untouched();
  for (Index row = 0; row < 2; ++row) {
    for (Index i = 0; i < 12; ++i) EXPECT_EQ(load(DType::f32, tensors.out.view().at(0, row, 0), i), 0.0f);
  }
  EXPECT_EQ(tensors.lse.floats(), std::vector<float>(6, -infinity));
}

}  // namespace plait::test
