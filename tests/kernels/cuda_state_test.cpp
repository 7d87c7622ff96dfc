// The GPU's merges and finishes, against the CPU's.
#include <bit>

#include "fold_checks.hpp"
#include "plait/cpu_device.hpp"
#include "plait/cuda_device.hpp"

namespace plait {
namespace {

using test::Case;
using test::GuardedState;

class CudaState : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string const reason = cuda_unavailable(); !reason.empty()) GTEST_SKIP() << "no GPU: " << reason;
    gpu_ = make_cuda_device();
    cpu_ = make_cpu_device();
  }

  std::unique_ptr<Device> gpu_;
  std::unique_ptr<Device> cpu_;
};

/// Rows of all kinds: every fifth is the identity, some lie far apart, in some m and log2 l cancel.
std::vector<float> random_state(Case const& shape, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Index const rows = shape.batch * shape.q_heads * shape.q_rows;
  std::vector<float> floats(state_bytes(shape.batch, shape.q_heads, shape.q_rows, shape.value_dim) /
                            sizeof(float));
  StateView const state =
      state_view(floats.data(), shape.batch, shape.q_heads, shape.q_rows, shape.value_dim);
  for (Index row = 0; row < rows; ++row) {
    bool const identity = random() % 5 == 0;
    float const l = identity ? 0.0f : std::exp(4.0f * normal(random));
    float const m = random() % 4 == 0 ? -std::log2(l) : 30.0f * normal(random);
    state.m[row] = identity ? -test::infinity : m;
    state.l[row] = l;
    for (Index d = 0; d < shape.value_dim; ++d)
      state.o[row * shape.value_dim + d] = identity ? 0.0f : l * normal(random);
  }
  return floats;
}

void put(Device& device, GuardedState const& state, std::vector<float> const& floats) {
  device.upload(std::as_bytes(std::span(floats)), reinterpret_cast<std::byte*>(state.data()));
}

std::vector<Case> cases() {
  std::vector<Case> found;
  for (Index const dim : {1, 3, 4, 40, 64, 111, 128, 130, 192, 256, 512}) {
    found.push_back({.q_rows = 333, .q_heads = 3, .kv_heads = 1, .value_dim = dim, .batch = 2});
  }
  found.push_back({.q_rows = 1, .q_heads = 5, .value_dim = 128});
  found.push_back({.q_rows = 20000, .q_heads = 2, .value_dim = 64});
  return found;
}

TEST_F(CudaState, MergeCommutesAndPassesTheIdentityBitForBit) {
  for (Case const& shape : cases()) {
    SCOPED_TRACE(test::describe(shape));
    std::vector<float> const a = random_state(shape, 1);
    std::vector<float> const b = random_state(shape, 2);
    GuardedState left(*gpu_, shape);
    GuardedState right(*gpu_, shape);
    GuardedState into(*gpu_, shape);
    put(*gpu_, left, a);
    put(*gpu_, into, b);
    gpu_->merge(left.view(), into.view(), Start::carried);
    put(*gpu_, right, b);
    gpu_->merge(right.view(), left.view(), Start::carried);
    test::expect_same_bits(left.floats(), into.floats());
    gpu_->merge(right.view(), into.view(), Start::identity);
    test::expect_same_bits(into.floats(), b);
    left.expect_guarded();
    into.expect_guarded();
  }
}

TEST_F(CudaState, MergesAsTheCpu) {
  for (Case const& shape : cases()) {
    SCOPED_TRACE(test::describe(shape));
    std::vector<float> const a = random_state(shape, 3);
    std::vector<float> const b = random_state(shape, 4);
    std::vector<std::vector<float>> merged;
    for (Device* const device : {cpu_.get(), gpu_.get()}) {
      GuardedState from(*device, shape);
      GuardedState into(*device, shape);
      put(*device, from, a);
      put(*device, into, b);
      device->merge(from.view(), into.view(), Start::carried);
      merged.push_back(into.floats());
    }
    for (std::size_t i = 0; i < a.size(); ++i) {
      float const size = std::isinf(merged[0][i]) ? 0.0f : std::abs(a[i]) + std::abs(b[i]);
      if (merged[0][i] == merged[1][i]) continue;
      ASSERT_NEAR(merged[1][i], merged[0][i], 1e-6f * size) << i;  // 2^x differs in its last bits
    }
  }
}

TEST_F(CudaState, FinishesAsTheCpu) {
  for (Case shape : cases()) {
    for (Index const unit : {1, 8}) {
      for (DType const dtype : {DType::f32, DType::f16, DType::bf16}) {
        shape.padding_unit = unit;
        SCOPED_TRACE(test::describe(shape) << ", " << name(dtype));
        std::vector<float> const state = random_state(shape, 5);
        std::vector<std::vector<float>> outs(2);
        std::vector<std::vector<float>> lses;
        for (int at = 0; at < 2; ++at) {
          Device& device = at == 0 ? *cpu_ : *gpu_;
          GuardedState from(device, shape);
          put(device, from, state);
          test::Tensors tensors(device, dtype, shape, 1);
          device.finish(from.view(), tensors.output(device));
          from.expect_guarded();
          tensors.lse.expect_guarded();
          tensors.out.fetch(device);
          tensors.out.expect_padding_untouched();
          MutableTensorView const out = tensors.out.view();
          for (Index row = 0; row < out.batch * out.rows; ++row) {
            for (Index i = 0; i < out.heads * out.dim; ++i)
              outs[static_cast<std::size_t>(at)].push_back(load(dtype, out.data, row * out.row_stride + i));
          }
          lses.push_back(tensors.lse.floats());
        }
        // One unit in the last place: the GPU multiplies by the reciprocal of l.
        float const unit_in_last_place = dtype == DType::f32   ? 0x1p-22f
                                         : dtype == DType::f16 ? 0x1p-10f
                                                               : 0x1p-7f;
        for (std::size_t i = 0; i < outs[0].size(); ++i) {
          ASSERT_NEAR(outs[1][i], outs[0][i], unit_in_last_place * std::abs(outs[0][i])) << i;
        }
        for (std::size_t i = 0; i < lses[0].size(); ++i) {
          if (lses[0][i] == lses[1][i]) continue;
          ASSERT_NEAR(lses[1][i], lses[0][i], 6e-8 + 1.2e-7 * std::abs(lses[0][i])) << i;
        }
      }
    }
  }
}

TEST_F(CudaState, FinishOfTheIdentityIsZeroAndMinusInfinity) {
  test::check_identity_finishes_as_nothing(*gpu_);
}

/// A state of more than 2^31 elements: the merge and the finish of its last rows.
TEST_F(CudaState, OffsetsBeyond32Bits) {
  Case const shape{.q_rows = (Index{1} << 20) + 3, .q_heads = 16, .value_dim = 128};
  Index const rows = shape.q_heads * shape.q_rows;
  std::unique_ptr<DeviceMemory> from_memory, into_memory, out_memory;
  std::size_t const bytes = state_bytes(1, shape.q_heads, shape.q_rows, shape.value_dim);
  try {
    from_memory = gpu_->allocate(bytes);
    into_memory = gpu_->allocate(bytes);
    out_memory = gpu_->allocate(static_cast<std::size_t>(rows * shape.value_dim) * sizeof(std::uint16_t));
  } catch (std::bad_alloc const&) {
    GTEST_SKIP() << "too little memory";
  }
  StateView const from = state_view(from_memory->data(), 1, shape.q_heads, shape.q_rows, shape.value_dim);
  StateView const into = state_view(into_memory->data(), 1, shape.q_heads, shape.q_rows, shape.value_dim);
  // The last row alone is known: m 0, l 1, O 1, 2, 3, ... on both sides. The others are never looked at.
  std::vector<float> o(static_cast<std::size_t>(shape.value_dim));
  for (std::size_t i = 0; i < o.size(); ++i) o[i] = static_cast<float>(i + 1);
  float const zero = 0.0f;
  float const one = 1.0f;
  auto const put_floats = [&](std::span<float const> values, float* to) {
    gpu_->upload(std::as_bytes(values), reinterpret_cast<std::byte*>(to));
  };
  for (StateView const& state : {from, into}) {
    put_floats({&zero, 1}, state.m + rows - 1);
    put_floats({&one, 1}, state.l + rows - 1);
    put_floats(o, state.o + (rows - 1) * shape.value_dim);
  }
  gpu_->merge(from, into, Start::carried);
  std::byte* const last = reinterpret_cast<std::byte*>(into.o + (rows - 1) * shape.value_dim);
  std::vector<float> const merged = test::download<float>(*gpu_, last, o.size());
  for (std::size_t i = 0; i < o.size(); ++i) ASSERT_EQ(merged[i], 2.0f * o[i]);
  MutableTensorView const out =
      dense<void>(out_memory->data(), DType::bf16, 1, shape.q_rows, shape.q_heads, shape.value_dim);
  gpu_->finish(into, {.out = out});
  auto const finished = test::download<std::uint16_t>(
      *gpu_, static_cast<std::byte const*>(out.at(0, shape.q_rows - 1, shape.q_heads - 1)), o.size());
  for (std::size_t i = 0; i < o.size(); ++i) ASSERT_EQ(bf16_to_float(finished[i]), o[i]);
}

}  // namespace
}  // namespace plait
