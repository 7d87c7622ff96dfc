// merge and finish on states: one pass over the memory, nothing else.
#include <algorithm>
#include <cstdint>

#include "call.hpp"
#include "finish.cuh"
#include "plait/rounding.hpp"
#include "state_kernels.hpp"

namespace plait::cuda {
namespace {

constexpr int threads = 256;
/// Rows of one thread whose loads are in flight together: an H200 wants more threads of a merge, which reads
/// two states, and more loads of a finish.
constexpr int merged_at_once = 2;
constexpr int finished_at_once = 8;

/// Threads of one row, a power of two and at most a warp; the others take further rows.
struct RowThreads {
  int log2_lanes;

  [[nodiscard]] __device__ int lane() const { return static_cast<int>(threadIdx.x) & (lanes() - 1); }
  [[nodiscard]] __device__ int row() const { return static_cast<int>(threadIdx.x) >> log2_lanes; }
  [[nodiscard]] __host__ __device__ int lanes() const { return 1 << log2_lanes; }
  [[nodiscard]] __host__ __device__ int rows() const { return threads >> log2_lanes; }
};

RowThreads row_threads(Index vectors) {
  int log2_lanes = 0;
  while (log2_lanes < 5 && (1 << log2_lanes) < vectors) ++log2_lanes;
  return {log2_lanes};
}

struct MergeArgs {
  StateView from;
  StateView into;
  Index rows;     ///< of all heads and batch entries
  Index vectors;  ///< of a row
  RowThreads split;
};

/// Every load is issued before the first is needed; rows past the end load the last one, and store nothing.
template <int width, bool carried>
__global__ void __launch_bounds__(threads) merge_kernel(MergeArgs const args) {
  using Vector = Columns<float, width>;
  auto const* const from = reinterpret_cast<Vector const*>(args.from.o);
  auto* const into = reinterpret_cast<Vector*>(args.into.o);
  Index const first = Index{blockIdx.x} * args.split.rows() * merged_at_once + args.split.row();
  Index rows[merged_at_once];
  float m_from[merged_at_once];
  float l_from[merged_at_once];
  float m_into[merged_at_once];
  float l_into[merged_at_once];
#pragma unroll
  for (int i = 0; i < merged_at_once; ++i) {
    rows[i] = min(first + i * args.split.rows(), args.rows - 1);
    m_from[i] = args.from.m[rows[i]];
    l_from[i] = args.from.l[rows[i]];
    m_into[i] = carried ? args.into.m[rows[i]] : -std::numeric_limits<float>::infinity();
    l_into[i] = carried ? args.into.l[rows[i]] : 0.0f;
  }
  for (Index at = args.split.lane(); at < args.vectors; at += args.split.lanes()) {
    Vector left[merged_at_once];
    Vector right[merged_at_once];
#pragma unroll
    for (int i = 0; i < merged_at_once; ++i) {
      right[i] = from[rows[i] * args.vectors + at];
      if (carried) left[i] = into[rows[i] * args.vectors + at];
    }
#pragma unroll
    for (int i = 0; i < merged_at_once; ++i) {
      if (first + i * args.split.rows() >= args.rows) continue;
      if (carried) {
        RowMerge const merge = merge_rows(m_into[i], m_from[i]);
#pragma unroll
        for (int e = 0; e < width; ++e) right[i].value[e] = merge(left[i].value[e], right[i].value[e]);
      }
      into[rows[i] * args.vectors + at] = right[i];
    }
  }
  __syncwarp();  // the row's other threads have read m
  if (args.split.lane() != 0) return;
#pragma unroll
  for (int i = 0; i < merged_at_once; ++i) {
    if (first + i * args.split.rows() >= args.rows) continue;
    RowMerge const merge = merge_rows(m_into[i], m_from[i]);
    args.into.m[rows[i]] = carried ? merge.m : m_from[i];
    args.into.l[rows[i]] = carried ? merge(l_into[i], l_from[i]) : l_from[i];
  }
}

struct FinishArgs {
  StateView state;
  Output output;
  Index vectors;
  RowThreads split;
};

/// Heads and batch entries lie along x, which is dealt out first: blocks that run together write the outputs
/// of the same tokens, which lie side by side in memory.
template <class T, int width>
__global__ void __launch_bounds__(threads) finish_kernel(FinishArgs const args) {
  StateView const& state = args.state;
  MutableTensorView const& out = args.output.out;
  Index const step = args.split.rows();
  Index const lane = blockIdx.x;
  Index const b = lane / state.heads;
  Index const head = lane % state.heads;
  for (Index block = blockIdx.y; block * step * finished_at_once < state.rows; block += gridDim.y) {
    Index const first = block * step * finished_at_once + args.split.row();
    Index rows[finished_at_once];
    float m[finished_at_once];
    float l[finished_at_once];
#pragma unroll
    for (int i = 0; i < finished_at_once; ++i) {
      rows[i] = min(first + i * step, state.rows - 1);
      m[i] = state.m != nullptr ? state.m[lane * state.rows + rows[i]] : 0.0f;
      l[i] = state.m != nullptr ? state.l[lane * state.rows + rows[i]] : 0.0f;
    }
    for (Index at = args.split.lane(); at < args.vectors; at += args.split.lanes()) {
      Columns<float, width> o[finished_at_once] = {};
#pragma unroll
      for (int i = 0; i < finished_at_once; ++i) {
        if (state.m == nullptr) continue;
        o[i] = reinterpret_cast<Columns<float, width> const*>(
            state.o)[(lane * state.rows + rows[i]) * args.vectors + at];
      }
#pragma unroll
      for (int i = 0; i < finished_at_once; ++i) {
        if (first + i * step >= state.rows) continue;
        Columns<T, width> rounded;
        float const reciprocal = __frcp_rn(l[i]);
#pragma unroll
        for (int e = 0; e < width; ++e) {
          rounded.value[e] = rounded_to<T>(finished(o[i].value[e], l[i], reciprocal));
        }
        T* const target = static_cast<T*>(out.data) + (b * out.batch_stride + rows[i] * out.row_stride +
                                                       head * out.head_stride + at * width);
        *reinterpret_cast<Columns<T, width>*>(target) = rounded;
      }
    }
    // The lse of several rows at once, each by a thread of its own.
    for (int own = args.split.lane(); own < finished_at_once; own += args.split.lanes()) {
      float own_m = m[0];
      float own_l = l[0];
#pragma unroll
      for (int i = 1; i < finished_at_once; ++i) {
        if (i == own) own_m = m[i], own_l = l[i];
      }
      Index const row = first + own * step;
      if (row < state.rows) write_lse(args.output, b, head, row, own_m, own_l);
    }
  }
}

template <class T>
void launch_finish_to(FinishArgs args, cudaStream_t stream) {
  MutableTensorView const& out = args.output.out;
  bool const wide =
      args.state.value_dim % 4 == 0 && is_aligned(args.state.o, 16) && moves_columns(out, sizeof(T), 4);
  args.vectors = wide ? args.state.value_dim / 4 : args.state.value_dim;
  args.split = row_threads(args.vectors);
  Index const rows_of_block = args.split.rows() * finished_at_once;
  Index const row_blocks = divided_up(args.state.rows, rows_of_block);
  dim3 const grid(static_cast<unsigned>(args.state.batch * args.state.heads),
                  static_cast<unsigned>(std::min<Index>(row_blocks, 65535)));
  if (wide) {
    finish_kernel<T, 4><<<grid, threads, 0, stream>>>(args);
  } else {
    finish_kernel<T, 1><<<grid, threads, 0, stream>>>(args);
  }
  PLAIT_CUDA(cudaGetLastError());
}

}  // namespace

void launch_merge(StateView const& from, StateView const& into, Start start, cudaStream_t stream) {
  MergeArgs args{.from = from,
                 .into = into,
                 .rows = into.batch * into.heads * into.rows,
                 .vectors = into.value_dim,
                 .split = {}};
  if (args.rows == 0) return;
  bool const wide = into.value_dim % 4 == 0 && is_aligned(from.o, 16) && is_aligned(into.o, 16);
  if (wide) args.vectors /= 4;
  args.split = row_threads(args.vectors);
  Index const rows_of_block = args.split.rows() * merged_at_once;
  auto const blocks = static_cast<unsigned>(divided_up(args.rows, rows_of_block));
  bool const carried = start == Start::carried;
  auto const kernel = wide ? (carried ? merge_kernel<4, true> : merge_kernel<4, false>)
                           : (carried ? merge_kernel<1, true> : merge_kernel<1, false>);
  kernel<<<blocks, threads, 0, stream>>>(args);
  PLAIT_CUDA(cudaGetLastError());
}

void launch_finish(StateView const& state, Output const& output, cudaStream_t stream) {
  if (state.batch * state.heads * state.rows == 0) return;
  FinishArgs const args{.state = state, .output = output, .vectors = 0, .split = {}};
  with_type(output.out.dtype, [&](auto zero) { launch_finish_to<decltype(zero)>(args, stream); });
}

}  // namespace plait::cuda
