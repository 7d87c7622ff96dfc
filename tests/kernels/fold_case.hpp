// Folds on any device, against the fp64 oracle: tensors with poisoned padding, states and outputs between
// canaries, and the judgement of what comes back.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "oracle.hpp"
#include "plait/device.hpp"
#include "plait/rounding.hpp"

namespace plait::test {

inline constexpr float nan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float infinity = std::numeric_limits<float>::infinity();

struct Case {
  Index q_rows = 1;
  Index kv_rows = 1;
  Index q_heads = 1;
  Index kv_heads = 1;
  Index dim = 64;
  Index value_dim = 64;
  Index batch = 1;
  float spread = 1.0f;          ///< standard deviation of q and k
  Index padding_unit = 1;       ///< elements; 1: rows start at any element, 8: at 16 bytes
  Index spare_heads = 0;        ///< heads of the tensors before and after those that are used
  Index oracle_rows = 1 << 20;  ///< at most so many rows are judged, spread over all
  bool beside_transfers = false;
};

inline Band full(Case const& shape) {
  return {.q = {0, shape.q_rows}, .kv = {0, shape.kv_rows}};
}

template <class T>
[[nodiscard]] std::vector<T> download(Device& device, std::byte const* from, std::size_t count) {
  std::vector<T> copy(count);
  device.download(from, std::as_writable_bytes(std::span(copy)));
  return copy;
}

/// A tensor of the host and its copy on the device. Everything around the elements holds NaN: the padding
/// after each row, spare heads, and a guard at both ends. Reading it shows, and so does writing it.
class Padded {
 public:
  Padded(DType dtype, Index batch, Index rows, Index heads, Index dim, Index padding, Index spare_heads = 0)
      : elements_(2 * guard + batch * rows * ((heads + 2 * spare_heads) * dim + padding)),
        bytes_(static_cast<std::size_t>(elements_) * size_bytes(dtype)) {
    Index const stride = (heads + 2 * spare_heads) * dim + padding;
    view_ = {at(bytes_.data(), dtype, guard + spare_heads * dim),
             dtype,
             batch,
             rows,
             heads,
             dim,
             rows * stride,
             stride,
             dim};
    for (Index i = 0; i < elements_; ++i) store(dtype, bytes_.data(), i, nan);
  }
  Padded(Padded const&) = delete;
  Padded& operator=(Padded const&) = delete;

  void fill(std::mt19937& random, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    for_each_row([&](void* row) {
      for (Index i = 0; i < view_.heads * view_.dim; ++i) store(view_.dtype, row, i, normal(random));
    });
  }
  /// Of the host.
  [[nodiscard]] MutableTensorView view() const { return view_; }
  /// Of the device; the first call copies the host's elements there.
  [[nodiscard]] MutableTensorView on(Device& device) const {
    if (!memory_) {
      memory_ = device.allocate(bytes_.size());
      device.upload(bytes_, memory_->data());
    }
    MutableTensorView moved = view_;
    moved.data = memory_->data() + (static_cast<std::byte*>(view_.data) - bytes_.data());
    return moved;
  }
  /// Copies the device's elements back.
  void fetch(Device& device) { device.download(memory_->data(), bytes_); }

  void expect_padding_untouched() const {
    std::vector<bool> used(static_cast<std::size_t>(elements_), false);
    for_each_row([&](void* row) {
      auto const first =
          static_cast<std::size_t>(static_cast<std::byte*>(row) - bytes_.data()) / size_bytes(view_.dtype);
      std::fill_n(used.begin() + static_cast<std::ptrdiff_t>(first), view_.heads * view_.dim, true);
    });
    for (Index i = 0; i < elements_; ++i) {
      if (used[static_cast<std::size_t>(i)]) continue;
      ASSERT_TRUE(std::isnan(load(view_.dtype, bytes_.data(), i))) << "element " << i;
    }
  }

 private:
  static constexpr Index guard = 64;
  static void* at(std::byte* data, DType dtype, Index element) {
    return data + element * static_cast<Index>(size_bytes(dtype));
  }
  template <class Use>
  void for_each_row(Use&& use) const {
    for (Index b = 0; b < view_.batch; ++b) {
      for (Index row = 0; row < view_.rows; ++row) use(view_.at(b, row, 0));
    }
  }

  Index elements_;
  std::vector<std::byte> bytes_;
  MutableTensorView view_;
  mutable std::unique_ptr<DeviceMemory> memory_;
};

/// Floats of the device between canaries.
class Guarded {
 public:
  Guarded(Device& device, std::size_t count)
      : device_(&device), count_(count), memory_(device.allocate((count + 2 * guard) * sizeof(float))) {
    std::vector<float> const canaries(count + 2 * guard, canary);
    device.upload(std::as_bytes(std::span(canaries)), memory_->data());
  }
  [[nodiscard]] float* data() const { return reinterpret_cast<float*>(memory_->data()) + guard; }
  /// What lies between the canaries, on the host.
  [[nodiscard]] std::vector<float> floats() const {
    auto const all = download<float>(*device_, memory_->data(), count_ + 2 * guard);
    return {all.begin() + guard, all.end() - guard};
  }
  void expect_guarded() const {
    auto const all = download<float>(*device_, memory_->data(), count_ + 2 * guard);
    for (std::size_t i = 0; i < guard; ++i) {
      ASSERT_EQ(all[i], canary);
      ASSERT_EQ(all[all.size() - 1 - i], canary);
    }
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr float canary = 12345.0f;
  Device* device_;
  std::size_t count_;
  std::unique_ptr<DeviceMemory> memory_;
};

/// A state between canaries.
class GuardedState : public Guarded {
 public:
  GuardedState(Device& device, Case const& shape)
      : Guarded(device,
                state_bytes(shape.batch, shape.q_heads, shape.q_rows, shape.value_dim) / sizeof(float)),
        view_(state_view(data(), shape.batch, shape.q_heads, shape.q_rows, shape.value_dim)) {}
  [[nodiscard]] StateView view() const { return view_; }

 private:
  StateView view_;
};

struct Tensors {
  Tensors(Device& device, DType dtype, Case const& shape, std::uint32_t seed)
      : q(dtype, shape.batch, shape.q_rows, shape.q_heads, shape.dim, 3 * shape.padding_unit,
          shape.spare_heads),
        k(dtype, shape.batch, shape.kv_rows, shape.kv_heads, shape.dim, 5 * shape.padding_unit,
          shape.spare_heads),
        v(dtype, shape.batch, shape.kv_rows, shape.kv_heads, shape.value_dim, shape.padding_unit,
          shape.spare_heads),
        out(dtype, shape.batch, shape.q_rows, shape.q_heads, shape.value_dim, 2 * shape.padding_unit,
            shape.spare_heads),
        lse(device, static_cast<std::size_t>(shape.batch * shape.q_heads * shape.q_rows)),
        scale(1.0f / std::sqrt(static_cast<float>(shape.dim))),
        beside_transfers(shape.beside_transfers) {
    std::mt19937 random(seed);
    q.fill(random, shape.spread);
    k.fill(random, shape.spread);
    v.fill(random, 1.0f);
  }
  [[nodiscard]] Output output(Device& device) const {
    MutableTensorView const view = out.on(device);
    return {.out = view,
            .lse = lse.data(),
            .lse_batch_stride = view.heads * view.rows,
            .lse_head_stride = view.rows};
  }
  Padded q, k, v, out;
  Guarded lse;
  float scale;
  bool beside_transfers;
};

/// A fold of all queries and the keys [keys).
inline std::unique_ptr<FoldPlan> prepare(Device& device, Tensors const& tensors, std::span<Band const> bands,
                                         Slice keys, Start start, bool finishes) {
  MutableTensorView const q = tensors.q.on(device);
  return device.prepare({.q = {0, q.rows},
                         .kv = keys,
                         .bands = bands,
                         .dtype = q.dtype,
                         .head_dim = q.dim,
                         .value_dim = tensors.v.view().dim,
                         .lanes = q.batch * q.heads,
                         .group = q.heads / tensors.k.view().heads,
                         .start = start,
                         .finishes = finishes});
}

/// Folds the keys [keys) into the state, or, with an output, finishes the rows too.
/// @returns the kernel that did it
inline std::string fold(Device& device, Tensors const& tensors, std::span<Band const> bands, Slice keys,
                        StateView state, Start start, std::optional<Output> const& output = std::nullopt) {
  auto const plan = prepare(device, tensors, bands, keys, start, output.has_value());
  device.fold(*plan, {.q = tensors.q.on(device),
                      .k = tensors.k.on(device).rows_of(keys),
                      .v = tensors.v.on(device).rows_of(keys),
                      .state = state,
                      .scale = tensors.scale,
                      .output = output,
                      .beside_transfers = tensors.beside_transfers});
  device.synchronize();  // before the plan goes
  return plan->kernel();
}

/// A dense copy of some rows.
inline std::unique_ptr<Padded> rows_of(TensorView const& view, std::vector<Index> const& rows) {
  auto const count = static_cast<Index>(rows.size());
  auto copy = std::make_unique<Padded>(view.dtype, view.batch, count, view.heads, view.dim, 0);
  for (Index b = 0; b < view.batch; ++b) {
    for (Index i = 0; i < count; ++i) {
      void const* const from = view.at(b, rows[static_cast<std::size_t>(i)], 0);
      for (Index e = 0; e < view.heads; ++e) {
        for (Index d = 0; d < view.dim; ++d)
          store(view.dtype, copy->view().at(b, i, e), d, load(view.dtype, from, e * view.head_stride + d));
      }
    }
  }
  return copy;
}

/// Judges out and lse on the device.
inline void expect_oracle(Device& device, Case const& shape, Tensors& tensors,
                          std::function<bool(Index, Index)> keeps) {
  tensors.out.fetch(device);
  tensors.out.expect_padding_untouched();
  tensors.lse.expect_guarded();
  std::vector<Index> rows;
  Index const step = std::max<Index>(1, divided_up(shape.q_rows, shape.oracle_rows));
  for (Index row = 0; row < shape.q_rows; row += step) rows.push_back(row);
  if (rows.back() != shape.q_rows - 1) rows.push_back(shape.q_rows - 1);
  auto const q = rows_of(tensors.q.view(), rows);
  auto const out = rows_of(tensors.out.view(), rows);
  std::vector<float> lse;
  std::vector<float> const all_lse = tensors.lse.floats();
  for (Index lane = 0; lane < shape.batch * shape.q_heads; ++lane) {
    for (Index const row : rows) lse.push_back(all_lse[static_cast<std::size_t>(lane * shape.q_rows + row)]);
  }
  OracleResult const oracle =
      compute_oracle({.q = q->view(),
                      .q_positions = rows,
                      .kv_tokens = shape.kv_rows,
                      .kv_heads = shape.kv_heads,
                      .value_dim = shape.value_dim,
                      .keys = [&](Slice slice) { return tensors.k.view().rows_of(slice); },
                      .values = [&](Slice slice) { return tensors.v.view().rows_of(slice); },
                      .keeps = std::move(keeps),
                      .scale = static_cast<double>(tensors.scale)});
  Difference const out_error = compare_out(oracle, out->view());
  Difference const lse_error = compare_lse(oracle, lse);
  EXPECT_LE(out_error.max_abs_error, out_tolerance(oracle).value()) << describe(out_error);
  EXPECT_LE(lse_error.max_abs_error, lse_tolerance(oracle).value()) << describe(lse_error);
}

}  // namespace plait::test
