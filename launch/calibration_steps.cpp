#include "calibration_steps.hpp"

#include <chrono>

#include "random.hpp"

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;

/// Seconds until the device has done `work`, `times` over.
template <class Work>
double timed(Device& device, int times, Work&& work) {
  device.synchronize();
  auto const start = Clock::now();
  for (int i = 0; i < times; ++i) work();
  device.synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::unique_ptr<DeviceMemory> random_elements(Device& device, DType dtype, Index count,
                                              std::uint64_t tensor) {
  RandomTensor const numbers(0, tensor);
  std::vector<std::byte> host(static_cast<std::size_t>(count) * size_bytes(dtype));
  for (Index i = 0; i < count; ++i) {
    store(dtype, host.data(), i, static_cast<float>(numbers.uniform(static_cast<std::uint64_t>(i))));
  }
  std::unique_ptr<DeviceMemory> memory = device.allocate(host.size());
  device.upload(host, memory->data());
  return memory;
}

Problem problem_of(FoldCase const& fold, ElementShape const& elements) {
  Shape const shape = shape_of(fold.rows, fold.keys, fold.q_heads, fold.kv_heads, elements);
  return {.shape = shape,
          .mask = fold.causal ? Mask::causal(fold.rows, fold.keys) : Mask::full(fold.rows, fold.keys),
          .scale = default_scale(shape)};
}

Block block_of(Tensor tensor, Shape const& shape) {
  Index const tokens = tensor == Tensor::kv ? shape.kv_tokens : shape.q_tokens;
  return {.tensor = tensor, .slice = {0, tokens}, .heads = {0, shape.kv_heads}};
}

std::size_t bytes_of_state(Shape const& shape) {
  return state_bytes(1, shape.q_heads, shape.q_tokens, shape.value_dim);
}

StateView state_of(DeviceMemory const& memory, Shape const& shape) {
  return state_view(memory.data(), 1, shape.q_heads, shape.q_tokens, shape.value_dim);
}

}  // namespace

Shape shape_of(Index rows, Index keys, Index q_heads, Index kv_heads, ElementShape const& elements) {
  return {.q_tokens = rows,
          .kv_tokens = keys,
          .q_heads = q_heads,
          .kv_heads = kv_heads,
          .head_dim = elements.head_dim,
          .value_dim = elements.value_dim,
          .dtype = elements.dtype};
}

FoldBench::FoldBench(Device& device, FoldCase const& fold, ElementShape const& elements)
    : device_(device), problem_(problem_of(fold, elements)) {
  Shape const& shape = problem_.shape;
  q_ = random_elements(device, shape.dtype, shape.q_tokens * shape.q_heads * shape.head_dim, 0);
  kv_ = random_elements(device, shape.dtype,
                        shape.kv_tokens * shape.kv_heads * (shape.head_dim + shape.value_dim), 1);
  state_ = device.allocate(bytes_of_state(shape));
  FoldShape fold_shape{.q = {0, shape.q_tokens},
                       .kv = {0, shape.kv_tokens},
                       .bands = problem_.mask.bands(),
                       .dtype = shape.dtype,
                       .head_dim = shape.head_dim,
                       .value_dim = shape.value_dim,
                       .lanes = shape.batch * shape.q_heads,
                       .group = shape.group()};
  auto const first = device.prepare(fold_shape);
  this->fold(*first);
  fold_shape.start = Start::carried;
  prepared_ = device.prepare(fold_shape);
  device.synchronize();  // before the first one goes
}

FoldWork FoldBench::work() const {
  Shape const& shape = problem_.shape;
  return fold_work(problem_, block_of(Tensor::q, shape), block_of(Tensor::kv, shape), Start::carried);
}

double FoldBench::operator()(int times) {
  return timed(device_, times, [&] { fold(); });
}

void FoldBench::fold() {
  fold(*prepared_);
}

void FoldBench::fold(FoldPlan const& plan) {
  Shape const& shape = problem_.shape;
  Index const key_elements = shape.kv_tokens * shape.kv_heads * shape.head_dim;
  std::byte const* const values =
      kv_->data() + static_cast<std::size_t>(key_elements) * size_bytes(shape.dtype);
  device_.fold(
      plan,
      {.q = dense<void const>(q_->data(), shape.dtype, 1, shape.q_tokens, shape.q_heads, shape.head_dim),
       .k = dense<void const>(kv_->data(), shape.dtype, 1, shape.kv_tokens, shape.kv_heads, shape.head_dim),
       .v = dense<void const>(values, shape.dtype, 1, shape.kv_tokens, shape.kv_heads, shape.value_dim),
       .state = state_of(*state_, shape),
       .scale = static_cast<float>(problem_.scale)});
}

MergeBench::MergeBench(Device& device, Index rows, Index heads, ElementShape const& elements)
    : device_(device), shape_(shape_of(rows, 0, heads, heads, elements)) {
  auto const floats = static_cast<Index>(bytes_of_state(shape_) / sizeof(float));
  from_ = random_elements(device, DType::f32, floats, 2);
  into_ = random_elements(device, DType::f32, floats, 3);
}

double MergeBench::bytes() const {
  return merge_bytes(block_of(Tensor::state, shape_), shape_);
}

double MergeBench::operator()(int times) {
  return timed(device_, times,
               [&] { device_.merge(state_of(*from_, shape_), state_of(*into_, shape_), Start::carried); });
}

}  // namespace plait
