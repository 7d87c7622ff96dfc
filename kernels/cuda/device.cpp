#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numbers>

#include "call.hpp"
#include "fold_plan.hpp"
#include "join_kernel.hpp"
#include "plait/cuda_device.hpp"
#include "state_kernels.hpp"

namespace plait {
namespace cuda {
namespace {

using Clock = std::chrono::steady_clock;

TensorArg tensor_arg(TensorView const& view) {
  return {.data = view.data,
          .batch_stride = view.batch_stride,
          .row_stride = view.row_stride,
          .head_stride = view.head_stride};
}

/// The GPU's clock tied to the host's: events of one stream, and when the first of them passed.
class Marks {
 public:
  ~Marks() {
    for (cudaEvent_t const event : events_) (void)cudaEventDestroy(event);
  }

  std::size_t add(cudaStream_t stream) {
    bool const first = used_ == 0;
    if (first) {
      PLAIT_CUDA(cudaStreamSynchronize(stream));
      first_time_ = Clock::now();
    }
    if (used_ == events_.size()) PLAIT_CUDA(cudaEventCreate(&events_.emplace_back()));
    PLAIT_CUDA(cudaEventRecord(events_[used_], stream));
    return used_++;
  }

  std::vector<Clock::time_point> take() {
    std::vector<Clock::time_point> times;
    if (used_ > 0) PLAIT_CUDA(cudaEventSynchronize(events_[used_ - 1]));
    for (std::size_t i = 0; i < used_; ++i) {
      float milliseconds = 0.0f;
      PLAIT_CUDA(cudaEventElapsedTime(&milliseconds, events_[0], events_[i]));
      times.push_back(first_time_ + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double, std::milli>(milliseconds)));
    }
    used_ = 0;
    return times;
  }

 private:
  std::vector<cudaEvent_t> events_;
  std::size_t used_ = 0;
  Clock::time_point first_time_;
};

class CudaDevice : public Device {
 public:
  CudaDevice(CudaDeviceInfo info, CudaOptions const& options) : info_(std::move(info)), options_(options) {
    PLAIT_CUDA(cudaSetDevice(info_.index));
    PLAIT_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    counters_ = std::make_unique<CudaMemory>(4 * sizeof(std::int32_t));
    PLAIT_CUDA(cudaMemset(counters_->data(), 0, counters_->bytes()));
    int bytes = 0;
    PLAIT_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, info_.index));
    l2_bytes_ = bytes;
  }
  ~CudaDevice() override {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  CudaDevice(CudaDevice const&) = delete;
  CudaDevice& operator=(CudaDevice const&) = delete;

  std::string describe() const override {
    return fmt::format("cuda:{}, {}, {}", info_.index, info_.name, info_.pci);
  }

  std::unique_ptr<DeviceMemory> allocate(std::size_t bytes) override {
    use();
    return std::make_unique<CudaMemory>(bytes);
  }

  std::size_t scratch_bytes() const override { return counters_->bytes() + parts_->bytes(); }

  std::unique_ptr<FoldPlan> prepare(FoldShape const& shape) override {
    use();
    auto prepared = std::make_unique<CudaFoldPlan>(shape, choose_tiles(info_, shape, options_.kernel));
    if (prepared->scratch_bytes() > parts_->bytes()) {  // freeing the old one waits for what uses it
      parts_ = std::make_unique<CudaMemory>(prepared->scratch_bytes());
    }
    return prepared;
  }

  void fold(FoldPlan const& plan, FoldOperands const& given) override {
    use();
    auto const& prepared = dynamic_cast<CudaFoldPlan const&>(plan);
    FoldOperands const operands = prepared.rows_are_heads() ? heads_as_rows(given) : given;
    if (prepared.finishes() != operands.output.has_value()) {
      throw std::logic_error("a fold has an output iff it was prepared to finish");
    }
    Index const lanes = operands.q.batch * operands.q.heads;
    if (prepared.is_empty() || lanes == 0) return;
    if (prepared.lanes() != 0 && prepared.lanes() != lanes) {
      throw std::logic_error("a fold has the heads it was prepared for");
    }
    if (prepared.is_split()) return fold_parts(prepared, operands);
    launch(prepared, fold_args(prepared, operands));
    follows_fold_ = !operands.output;
  }

  void merge(StateView from, StateView into, Start start) override {
    use();
    follows_fold_ = false;
    launch_merge(from, into, start, stream_);
  }

  void finish(StateView state, Output const& output) override {
    use();
    follows_fold_ = false;
    launch_finish(state, output, stream_);
  }

  void upload(std::span<std::byte const> from, std::byte* to) override {
    use();
    PLAIT_CUDA(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, stream_));
    PLAIT_CUDA(cudaStreamSynchronize(stream_));
  }
  void download(std::byte const* from, std::span<std::byte> to) override {
    use();
    PLAIT_CUDA(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream_));
    PLAIT_CUDA(cudaStreamSynchronize(stream_));
  }

  void* stream() const override { return stream_; }
  std::size_t mark() override {
    use();
    return marks_.add(stream_);
  }
  std::vector<Clock::time_point> take_marks() override {
    use();
    return marks_.take();
  }
  void synchronize() override {
    use();
    PLAIT_CUDA(cudaStreamSynchronize(stream_));
  }

 private:
  /// The current device is a property of the calling thread.
  void use() const { PLAIT_CUDA(cudaSetDevice(info_.index)); }

  void launch(CudaFoldPlan const& plan, FoldArgs const& args) {
    plan.launcher().launch(args, stream_);
    // Two folds may run at the same time, and not three: they take turns at two pairs of counters.
    counters_turn_ = 1 - counters_turn_;
  }

  /// Each part of the keys from the identity to a state in scratch, then all of them to the state or output.
  void fold_parts(CudaFoldPlan const& plan, FoldOperands const& operands) {
    StateView const parts = plan.parts(parts_->data(), operands.q.batch, operands.q.heads);
    FoldOperands to_scratch = operands;
    to_scratch.state = parts;
    to_scratch.output.reset();
    if (plan.tile_count() > 0) {
      FoldArgs args = fold_args(plan, to_scratch);
      args.state_rows = static_cast<std::int32_t>(parts.rows);
      args.carried = false;
      launch(plan, args);
    }
    launch_join(plan.join(parts), operands.state, plan.start(), operands.output, stream_);
    // What follows may begin early, as after any fold: it waits for the join before it writes anything.
    follows_fold_ = !operands.output;
  }

  FoldArgs fold_args(CudaFoldPlan const& plan, FoldOperands const& operands) const {
    auto* const counters = reinterpret_cast<std::int32_t*>(counters_->data()) + 2 * counters_turn_;
    FoldArgs args{.tiles = plan.tiles(),
                  .segments = plan.segments(),
                  .tile_count = plan.tile_count(),
                  .cluster = plan.cluster(),
                  .batch = static_cast<std::int32_t>(operands.q.batch),
                  .q_heads = static_cast<std::int32_t>(operands.q.heads),
                  .group = static_cast<std::int32_t>(operands.q.heads / operands.k.heads),
                  .rows = static_cast<std::int32_t>(operands.q.rows),
                  .keys = static_cast<std::int32_t>(operands.k.rows),
                  .state_rows = static_cast<std::int32_t>(operands.q.rows),
                  .head_dim = static_cast<std::int32_t>(operands.q.dim),
                  .value_dim = static_cast<std::int32_t>(operands.v.dim),
                  .q = tensor_arg(operands.q),
                  .k = tensor_arg(operands.k),
                  .v = tensor_arg(operands.v),
                  .scale_log2 = operands.scale * std::numbers::log2e_v<float>,
                  .m = operands.state.m,
                  .l = operands.state.l,
                  .o = operands.state.o,
                  .carried = plan.start() == Start::carried,
                  .finishes = operands.output.has_value(),
                  .out = nullptr,
                  .out_batch_stride = 0,
                  .out_row_stride = 0,
                  .out_head_stride = 0,
                  .lse = nullptr,
                  .lse_batch_stride = 0,
                  .lse_head_stride = 0,
                  .lse_row_stride = 0,
                  .follows_fold = follows_fold_,
                  .next_item = counters,
                  .finished_ctas = counters + 1,
                  .heads_at_once = heads_at_once(operands),
                  .tiles_per_turn = operands.beside_transfers ? plan.tiles_per_turn() : 0};
    if (operands.output) {
      args.out = operands.output->out.data;
      args.out_batch_stride = operands.output->out.batch_stride;
      args.out_row_stride = operands.output->out.row_stride;
      args.out_head_stride = operands.output->out.head_stride;
      args.lse = operands.output->lse;
      args.lse_batch_stride = operands.output->lse_batch_stride;
      args.lse_head_stride = operands.output->lse_head_stride;
      args.lse_row_stride = operands.output->lse_row_stride;
    }
    return args;
  }

  /// Query heads whose keys and values together fit in a sixth of the L2 cache, at least one: each of its
  /// halves keeps a copy of its own, and queries, outputs and states pass through it too.
  std::int32_t heads_at_once(FoldOperands const& operands) const {
    auto const per_kv_head = operands.k.rows * (operands.k.dim + operands.v.dim) *
                             static_cast<Index>(size_bytes(operands.k.dtype));
    Index const kv_heads = std::max<Index>(1, l2_bytes_ / 6 / std::max<Index>(1, per_kv_head));
    Index const group = operands.q.heads / operands.k.heads;
    return static_cast<std::int32_t>(std::min(kv_heads * group, operands.q.heads * operands.q.batch));
  }

  CudaDeviceInfo info_;
  CudaOptions options_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaMemory> counters_;
  std::unique_ptr<CudaMemory> parts_ = std::make_unique<CudaMemory>(0);  ///< states of folds that are split
  int counters_turn_ = 0;
  bool follows_fold_ = false;  ///< the stream's last kernel of ours is a fold that left a state
  Index l2_bytes_ = 0;
  Marks marks_;
};

}  // namespace
}  // namespace cuda

std::vector<CudaDeviceInfo> cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return {};
  }
  std::vector<CudaDeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    PLAIT_CUDA(cudaGetDeviceProperties(&properties, index));
    char pci[32] = {};
    PLAIT_CUDA(cudaDeviceGetPCIBusId(pci, sizeof pci, index));
    devices.push_back({.index = index,
                       .name = properties.name,
                       .pci = pci,
                       .major = properties.major,
                       .minor = properties.minor,
                       .multiprocessors = properties.multiProcessorCount,
                       .memory_bytes = properties.totalGlobalMem});
  }
  return devices;
}

std::string cuda_unavailable() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return "there is no NVIDIA driver";
  int count = 0;
  cudaError_t const code = cudaGetDeviceCount(&count);
  if (code == cudaErrorInsufficientDriver) {
    (void)cudaGetLastError();
    constexpr int built_for = CUDART_VERSION;
    return fmt::format("the NVIDIA driver is for CUDA {}.{}, and this build for {}.{}", driver / 1000,
                       driver % 1000 / 10, built_for / 1000, built_for % 1000 / 10);
  }
  if (code != cudaSuccess) {
    (void)cudaGetLastError();
    return cudaGetErrorString(code);
  }
  return count == 0 ? "no GPU is visible" : "";
}

std::unique_ptr<Device> make_cuda_device(CudaOptions options) {
  if (std::string const reason = cuda_unavailable(); !reason.empty()) {
    throw Unsupported(fmt::format("device cuda: {}; --device cpu works", reason));
  }
  std::vector<CudaDeviceInfo> const devices = cuda_devices();
  if (options.index < 0 || options.index >= static_cast<int>(devices.size())) {
    throw Unsupported(fmt::format("device cuda:{}: this process sees {} GPU{}", options.index, devices.size(),
                                  devices.size() == 1 ? "" : "s"));
  }
  CudaDeviceInfo const& info = devices[static_cast<std::size_t>(options.index)];
  if (info.major < 8) {
    throw Unsupported(
        fmt::format("device cuda:{}: {} has compute capability {}.{}; the kernels need 8.0 or later",
                    options.index, info.name, info.major, info.minor));
  }
  return std::make_unique<cuda::CudaDevice>(info, options);
}

}  // namespace plait
