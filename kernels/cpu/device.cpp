#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <utility>

#include "device.hpp"
#include "fold_work.hpp"
#include "plait/host_memory.hpp"
#include "state_row.hpp"

namespace plait {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

class CpuMemory : public DeviceMemory {
 public:
  explicit CpuMemory(std::size_t bytes) : bytes_(bytes), data_(allocate_host(bytes)) {}
  ~CpuMemory() override { free_host(data_, bytes_); }
  CpuMemory(CpuMemory const&) = delete;
  CpuMemory& operator=(CpuMemory const&) = delete;

  std::byte* data() const override { return data_; }
  std::size_t bytes() const override { return bytes_; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

struct CpuFoldPlan : FoldPlan {
  CpuFoldPlan(Start fold_start, TileList tiles, cpu::FoldPath fold_path)
      : start(fold_start), list(std::move(tiles)), path(fold_path) {}
  std::size_t bytes() const override { return sizeof *this + list.bytes(); }
  std::string kernel() const override { return "cpu"; }
  Start start;
  TileList list;
  cpu::FoldPath path;
};

/// out = o / l, rounded once. The type is chosen outside the loops, so that they vectorise.
void finish_row(DType type, float const* o, float l, Index count, void* out) {
  switch (type) {
    case DType::f32:
      for (Index d = 0; d < count; ++d) static_cast<float*>(out)[d] = o[d] / l;
      return;
    case DType::bf16:
      for (Index d = 0; d < count; ++d) static_cast<std::uint16_t*>(out)[d] = float_to_bf16(o[d] / l);
      return;
    case DType::f16:
      for (Index d = 0; d < count; ++d) static_cast<std::uint16_t*>(out)[d] = float_to_f16(o[d] / l);
      return;
  }
}

class CpuDevice : public Device {
 public:
  CpuDevice(std::string name, cpu::PathOf path_of, int threads)
      : name_(std::move(name)),
        path_of_(std::move(path_of)),
        threads_(threads > 0 ? threads : omp_get_max_threads()) {}

  std::string describe() const override {
    return fmt::format("cpu, {}, {} thread{}", name_, threads_, threads_ == 1 ? "" : "s");
  }

  std::unique_ptr<DeviceMemory> allocate(std::size_t bytes) override {
    return std::make_unique<CpuMemory>(bytes);
  }

  std::size_t scratch_bytes() const override { return scratch_.bytes(); }

  std::unique_ptr<FoldPlan> prepare(FoldShape const& shape) override {
    constexpr Index largest = 512;
    if (shape.head_dim < 1 || shape.head_dim > largest || shape.value_dim < 1 || shape.value_dim > largest) {
      throw Unsupported(fmt::format("head dimensions {} and {}: the CPU folds 1 to {}", shape.head_dim,
                                    shape.value_dim, largest));
    }
    cpu::FoldPath const path = path_of_(shape.dtype);
    auto const needed = scratch_.larger(cpu::FoldScratch(path, shape.head_dim, shape.value_dim, threads_));
    if (needed.bytes() > scratch_.bytes()) {
      scratch_memory_ = std::make_unique<CpuMemory>(needed.bytes());
      std::memset(scratch_memory_->data(), 0, needed.bytes());
      scratch_ = needed;
      scratch_.place(scratch_memory_->data());
    }
    return std::make_unique<CpuFoldPlan>(
        shape.start, make_tile_list(shape.q, shape.kv, shape.bands, cpu::tile_rows), path);
  }

  void fold(FoldPlan const& plan, FoldOperands const& operands) override {
    auto const& prepared = dynamic_cast<CpuFoldPlan const&>(plan);
    if (prepared.start == Start::identity) clear(operands.state);
    cpu::fold(prepared.path, prepared.list, operands, threads_, scratch_);
    if (operands.output) finish(operands.state, *operands.output);
  }

  void merge(StateView from, StateView into, Start start) override {
    Index const rows = into.batch * into.heads * into.rows;
#pragma omp parallel for num_threads(threads_)
    for (Index row = 0; row < rows; ++row) {
      if (start == Start::identity) cpu::clear_row(into, row);
      cpu::merge_row(from, row, into, row);
    }
  }

  void finish(StateView state, Output const& output) override {
    MutableTensorView const& out = output.out;
    Index const lanes = state.batch * state.heads;
#pragma omp parallel for collapse(2) num_threads(threads_)
    for (Index lane = 0; lane < lanes; ++lane) {
      for (Index row = 0; row < state.rows; ++row) {
        Index const b = lane / state.heads;
        Index const head = lane % state.heads;
        Index const at = lane * state.rows + row;
        bool const sees = state.m != nullptr && state.l[at] != 0.0f;
        if (sees) {
          finish_row(out.dtype, state.o + at * state.value_dim, state.l[at], state.value_dim,
                     out.at(b, row, head));
        } else {
          std::memset(out.at(b, row, head), 0,
                      static_cast<std::size_t>(state.value_dim) * size_bytes(out.dtype));
        }
        if (output.lse == nullptr) continue;
        // In double: rounded once, though m and log2(l) may cancel.
        output
            .lse[b * output.lse_batch_stride + head * output.lse_head_stride + row * output.lse_row_stride] =
            sees ? static_cast<float>(std::numbers::ln2 * (static_cast<double>(state.m[at]) +
                                                           std::log2(static_cast<double>(state.l[at]))))
                 : -infinity;
      }
    }
  }

  void upload(std::span<std::byte const> from, std::byte* to) override {
    std::memcpy(to, from.data(), from.size());
  }
  void download(std::byte const* from, std::span<std::byte> to) override {
    std::memcpy(to.data(), from, to.size());
  }

  // Every call above returns when its work is done.
  void* stream() const override {
    return nullptr;
  }
  std::size_t mark() override {
    marks_.push_back(std::chrono::steady_clock::now());
    return marks_.size() - 1;
  }
  std::vector<std::chrono::steady_clock::time_point> take_marks() override {
    return std::exchange(marks_, {});
  }
  void synchronize() override {}

 private:
  void clear(StateView const& state) const {
    Index const rows = state.batch * state.heads * state.rows;
#pragma omp parallel for num_threads(threads_)
    for (Index row = 0; row < rows; ++row) cpu::clear_row(state, row);
  }

  std::string name_;
  cpu::PathOf path_of_;
  int threads_;
  cpu::FoldScratch scratch_;
  std::unique_ptr<CpuMemory> scratch_memory_;
  std::vector<std::chrono::steady_clock::time_point> marks_;
};

}  // namespace

std::unique_ptr<Device> cpu::make_device(std::string name, PathOf path_of, int threads) {
  return std::make_unique<CpuDevice>(std::move(name), std::move(path_of), threads);
}

}  // namespace plait
