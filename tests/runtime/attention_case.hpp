// One attention over the ranks of a world, run through the public facade and judged by the oracle.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "oracle.hpp"
#include "plait/attention.hpp"

namespace plait::test {

/// The device and transport that PLAIT_TEST_DEVICE and PLAIT_TEST_TRANSPORT ask for; by default a thread of
/// the CPU.
inline AttentionOptions test_options(World const& world) {
  auto const asks = [](char const* variable, std::string_view value) {
    char const* const found = std::getenv(variable);
    return found != nullptr && found == value;
  };
  AttentionOptions options{.cpu = {.threads = 1}};
  if (asks("PLAIT_TEST_DEVICE", "cuda")) {
    options.device = DeviceKind::cuda;
    options.cuda.index = world.place().local_rank % static_cast<int>(cuda_devices().size());
  }
  if (asks("PLAIT_TEST_TRANSPORT", "mpi")) options.transport = TransportKind::mpi;
  if (asks("PLAIT_TEST_TRANSPORT", "nccl")) options.transport = TransportKind::nccl;
  if (asks("PLAIT_TEST_TRANSPORT", "peer")) options.transport = TransportKind::peer;
  return options;
}

/// Random q, k, v of a whole problem, the same on every rank, in its element type.
class Tensors {
 public:
  Tensors(Shape const& shape, std::uint64_t seed) : shape_(shape) {
    std::mt19937_64 random(seed);
    q_ = fill(shape.batch * shape.q_tokens * shape.q_heads * shape.head_dim, random);
    k_ = fill(shape.batch * shape.kv_tokens * shape.kv_heads * shape.head_dim, random);
    v_ = fill(shape.batch * shape.kv_tokens * shape.kv_heads * shape.value_dim, random);
  }

  [[nodiscard]] TensorView q() const {
    return dense<void const>(q_.data(), shape_.dtype, shape_.batch, shape_.q_tokens, shape_.q_heads,
                             shape_.head_dim);
  }
  [[nodiscard]] TensorView k() const {
    return dense<void const>(k_.data(), shape_.dtype, shape_.batch, shape_.kv_tokens, shape_.kv_heads,
                             shape_.head_dim);
  }
  [[nodiscard]] TensorView v() const {
    return dense<void const>(v_.data(), shape_.dtype, shape_.batch, shape_.kv_tokens, shape_.kv_heads,
                             shape_.value_dim);
  }

 private:
  std::vector<std::byte> fill(Index count, std::mt19937_64& random) const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size_bytes(shape_.dtype));
    std::normal_distribution<float> normal;
    for (Index i = 0; i < count; ++i) store(shape_.dtype, bytes.data(), i, normal(random));
    return bytes;
  }

  Shape shape_;
  std::vector<std::byte> q_, k_, v_;
};

/// A rank's rows of a tensor, copied; every row padded by `padding` elements of NaN that nobody may read.
class LocalRows {
 public:
  LocalRows(TensorView const& whole, std::vector<Slice> const& slices, Index padding) {
    Index rows = 0;
    for (Slice const slice : slices) rows += slice.size();
    Index const row_stride = whole.heads * whole.dim + padding;
    bytes_.resize(static_cast<std::size_t>(whole.batch * rows * row_stride) * size_bytes(whole.dtype));
    view_ = {bytes_.data(), whole.dtype,       whole.batch, rows,     whole.heads,
             whole.dim,     rows * row_stride, row_stride,  whole.dim};
    Index const elements = whole.batch * rows * row_stride;
    for (Index i = 0; i < elements; ++i) {
      store(whole.dtype, bytes_.data(), i, std::numeric_limits<float>::quiet_NaN());
    }
    for (Index b = 0; b < whole.batch; ++b) {
      Index row = 0;
      for (Slice const slice : slices) {
        for (Index position = slice.begin; position < slice.end; ++position, ++row) {
          for (Index i = 0; i < whole.heads * whole.dim; ++i) {
            store(whole.dtype, view_.at(b, row, 0), i, load(whole.dtype, whole.at(b, position, 0), i));
          }
        }
      }
    }
  }
  [[nodiscard]] MutableTensorView view() const { return view_; }
  /// The same rows in a device's memory.
  [[nodiscard]] MutableTensorView placed(Device& device) {
    if (device.stream() == nullptr) return view_;
    memory_ = device.allocate(bytes_.size());
    device.upload(bytes_, memory_->data());
    MutableTensorView there = view_;
    there.data = memory_->data();
    return there;
  }

 private:
  std::vector<std::byte> bytes_;
  MutableTensorView view_;
  std::unique_ptr<DeviceMemory> memory_;
};

/// Errors over all ranks' rows.
struct Verdict {
  double out_error = 0.0;
  double out_tolerance = 0.0;
  double out_rms = 0.0;
  double lse_error = 0.0;
  double lse_tolerance = 0.0;
};

inline double max_over_ranks(World const& world, double mine) {
  double most = mine;
  for (auto const& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)), "a test's maximum")) {
    double theirs = 0.0;
    std::memcpy(&theirs, bytes.data(), sizeof theirs);
    most = std::max(most, theirs);
  }
  return most;
}

inline double sum_over_ranks(World const& world, double mine) {
  double sum = 0.0;
  for (auto const& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)), "a test's sum")) {
    double theirs = 0.0;
    std::memcpy(&theirs, bytes.data(), sizeof theirs);
    sum += theirs;
  }
  return sum;
}

/// This rank's side of one attention: its rows of the inputs, and room for its rows of the outputs.
class AttentionCase {
 public:
  AttentionCase(World const& world, Problem const& problem, Layouts const& layouts, std::uint64_t seed,
                Index padding = 0)
      : world_(world),
        problem_(problem),
        layouts_(layouts),
        tensors_(problem.shape, seed),
        q_(tensors_.q(), layouts.q.slices(world.rank()), padding),
        k_(tensors_.k(), layouts.kv.slices(world.rank()), padding),
        v_(tensors_.v(), layouts.kv.slices(world.rank()), padding) {
    Shape const& shape = problem.shape;
    Index const rows = layouts.q.tokens(world.rank());
    out_.resize(static_cast<std::size_t>(shape.batch * rows * shape.q_heads * shape.value_dim) *
                size_bytes(shape.dtype));
    lse_.resize(static_cast<std::size_t>(shape.batch * shape.q_heads * rows));
  }

  /// Where `attention` computes: the inputs are copied there.
  [[nodiscard]] LocalTensors tensors(Attention& attention) {
    Device& device = attention.device();
    bool const host = device.stream() == nullptr;
    if (!host) {
      device_out_ = device.allocate(out_.size());
      device_lse_ = device.allocate(lse_.size() * sizeof(float));
      device.upload(out_, device_out_->data());
      device.upload(std::as_bytes(std::span(lse_)), device_lse_->data());
    }
    return {.q = q_.placed(device),
            .k = k_.placed(device),
            .v = v_.placed(device),
            .out = out_view(host ? out_.data() : device_out_->data()),
            .lse = host ? lse_.data() : reinterpret_cast<float*>(device_lse_->data())};
  }

  /// Runs `attention` into outputs poisoned with NaN.
  RunReport run(Attention& attention) {
    for (std::size_t i = 0; i < out_.size() / size_bytes(problem_.shape.dtype); ++i) {
      store(problem_.shape.dtype, out_.data(), static_cast<Index>(i),
            std::numeric_limits<float>::quiet_NaN());
    }
    std::ranges::fill(lse_, std::numeric_limits<float>::quiet_NaN());
    RunReport report = attention.run(tensors(attention));
    if (attention.device().stream() != nullptr) {
      attention.device().download(device_out_->data(), out_);
      attention.device().download(device_lse_->data(), std::as_writable_bytes(std::span(lse_)));
    }
    return report;
  }

  [[nodiscard]] std::vector<std::byte> const& out() const { return out_; }
  [[nodiscard]] std::vector<float> const& lse() const { return lse_; }

  /// Compares the outputs of the last run with the oracle. `keeps` is the mask, written independently.
  /// Collective.
  [[nodiscard]] Verdict judge(std::function<bool(Index, Index)> keeps) {
    Shape const& shape = problem_.shape;
    OracleInput input{.q = q_.view(),
                      .kv_tokens = shape.kv_tokens,
                      .kv_heads = shape.kv_heads,
                      .value_dim = shape.value_dim,
                      .keys = [&](Slice slice) { return tensors_.k().rows_of(slice); },
                      .values = [&](Slice slice) { return tensors_.v().rows_of(slice); },
                      .keeps = std::move(keeps),
                      .scale = problem_.scale};
    for (Slice const slice : layouts_.q.slices(world_.rank())) {
      for (Index position = slice.begin; position < slice.end; ++position)
        input.q_positions.push_back(position);
    }
    OracleResult const oracle = compute_oracle(input);
    Tolerance const out = out_tolerance(oracle);
    Tolerance const lse = lse_tolerance(oracle);
    double squares = 0.0;
    for (std::size_t i = 0; i < oracle.out.size(); ++i) {
      squares += std::pow(load(shape.dtype, out_.data(), static_cast<Index>(i)) - oracle.out[i], 2);
    }
    auto const rms = [&] {
      double const count = sum_over_ranks(world_, static_cast<double>(oracle.out.size()));
      return std::sqrt(sum_over_ranks(world_, squares) / std::max(1.0, count));
    };
    return {.out_error = max_over_ranks(world_, compare_out(oracle, out_view(out_.data())).max_abs_error),
            .out_tolerance = max_over_ranks(world_, out.value()),
            .out_rms = rms(),
            .lse_error = max_over_ranks(world_, compare_lse(oracle, lse_).max_abs_error),
            .lse_tolerance = max_over_ranks(world_, lse.value())};
  }

 private:
  [[nodiscard]] MutableTensorView out_view(void* data) const {
    Shape const& shape = problem_.shape;
    return dense<void>(data, shape.dtype, shape.batch, layouts_.q.tokens(world_.rank()), shape.q_heads,
                       shape.value_dim);
  }

  World const& world_;
  Problem problem_;
  Layouts layouts_;
  Tensors tensors_;
  LocalRows q_, k_, v_;
  std::vector<std::byte> out_;
  std::vector<float> lse_;
  std::unique_ptr<DeviceMemory> device_out_;
  std::unique_ptr<DeviceMemory> device_lse_;
};

inline void expect_within(Verdict const& verdict) {
  EXPECT_LE(verdict.out_error, verdict.out_tolerance);
  EXPECT_LE(verdict.lse_error, verdict.lse_tolerance);
}

}  // namespace plait::test
