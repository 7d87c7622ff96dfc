// merge and finish on states: one pass over the memory, nothing else.
#include <algorithm>
#include <cstdint>

#include "call.hpp"
#include "finish.cuh"
#include "state_kernels.hpp"

namespace plait::cuda {
namespace {

constexpr int threads = 256;
constexpr int rows_at_once = 4;  ///< of one thread: their loads are in flight together

template <int width>
struct alignas(4 * width) Floats {
  float value[width];
};

template <class T, int width>
struct alignas(sizeof(T) * width) Elements {
  T value[width];
};

/// Threads of one row, a power of two and at most a warp; the others take further rows.
struct RowThreads {
  int log2_lanes;

  [[nodiscard]] __device__ int lane() const { return static_cast<int>(threadIdx.x) & (lanes() - 1); }
  [[nodiscard]] __device__ int row() const { return static_cast<int>(threadIdx.x) >> log2_lanes; }
  [[nodiscard]] __host__ __device__ int lanes() const { return 1 << log2_lanes; }
  [[nodiscard]] __host__ __device__ int rows() const { return threads >> log2_lanes; }
  [[nodiscard]] __host__ __device__ int rows_of_block() const { return rows() * rows_at_once; }
};

RowThreads row_threads(Index vectors) {
  int log2_lanes = 0;
  while (log2_lanes < 5 && (1 << log2_lanes) < vectors) ++log2_lanes;
  return {log2_lanes};
}

bool aligned(void const* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

/// Blocks that fill the device once: each walks over its share of the rows.
unsigned blocks_for(Index wanted) {
  int device = 0;
  int multiprocessors = 0;
  PLAIT_CUDA(cudaGetDevice(&device));
  PLAIT_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return static_cast<unsigned>(std::clamp<Index>(wanted, 1, Index{multiprocessors} * (2048 / threads)));
}

struct MergeArgs {
  StateView from;
  StateView into;
  Index rows;     ///< of all heads and batch entries
  Index vectors;  ///< of a row
  bool carried;
  RowThreads split;
};

/// The rows first, first + step, ... of one thread.
template <int width>
__device__ void merge_group(MergeArgs const& args, Index first) {
  using Vector = Floats<width>;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  Index const step = args.split.rows();
  RowMerge merges[rows_at_once];
  for (int i = 0; i < rows_at_once; ++i) {
    Index const row = first + i * step;
    bool const here = row < args.rows;
    float const left = here && args.carried ? args.into.m[row] : -infinity;
    merges[i] = merge_rows(left, here ? args.from.m[row] : -infinity);
  }
  for (Index at = args.split.lane(); at < args.vectors; at += args.split.lanes()) {
    Vector from[rows_at_once];
    Vector into[rows_at_once];
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) {
      Index const row = first + i * step;
      if (row >= args.rows) continue;
      from[i] = reinterpret_cast<Vector const*>(args.from.o)[row * args.vectors + at];
      if (args.carried) into[i] = reinterpret_cast<Vector const*>(args.into.o)[row * args.vectors + at];
    }
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) {
      Index const row = first + i * step;
      if (row >= args.rows) continue;
      if (args.carried) {
        for (int e = 0; e < width; ++e) from[i].value[e] = merges[i](into[i].value[e], from[i].value[e]);
      }
      reinterpret_cast<Vector*>(args.into.o)[row * args.vectors + at] = from[i];
    }
  }
  __syncwarp();  // the row's other threads have read m
  if (args.split.lane() != 0) return;
  for (int i = 0; i < rows_at_once; ++i) {
    Index const row = first + i * step;
    if (row >= args.rows) continue;
    float const l = args.from.l[row];
    args.into.l[row] = args.carried ? merges[i](args.into.l[row], l) : l;
    args.into.m[row] = merges[i].m;
  }
}

template <int width>
__global__ void __launch_bounds__(threads) merge_kernel(MergeArgs const args) {
  Index const step = Index{gridDim.x} * args.split.rows_of_block();
  // Every thread of a warp takes every turn: the turns have a barrier of the warp.
  for (Index block = Index{blockIdx.x} * args.split.rows_of_block(); block < args.rows; block += step) {
    merge_group<width>(args, block + args.split.row());
  }
}

struct FinishArgs {
  StateView state;
  Output output;
  Index vectors;
  RowThreads split;
};

template <class T, int width>
__device__ void finish_group(FinishArgs const& args, Index b, Index head, Index first) {
  StateView const& state = args.state;
  MutableTensorView const& out = args.output.out;
  Index const row_zero = (b * state.heads + head) * state.rows;
  Index const step = args.split.rows();
  float l[rows_at_once];
  for (int i = 0; i < rows_at_once; ++i) {
    Index const row = first + i * step;
    l[i] = row < state.rows && state.m != nullptr ? state.l[row_zero + row] : 0.0f;
  }
  for (Index at = args.split.lane(); at < args.vectors; at += args.split.lanes()) {
    Floats<width> o[rows_at_once];
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) {
      if (l[i] == 0.0f) continue;
      Index const row = row_zero + first + i * step;
      o[i] = reinterpret_cast<Floats<width> const*>(state.o)[row * args.vectors + at];
    }
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) {
      Index const row = first + i * step;
      if (row >= state.rows) continue;
      Elements<T, width> rounded;
      for (int e = 0; e < width; ++e) {
        rounded.value[e] = rounded_to<T>(finished(o[i].value[e], l[i], __frcp_rn(l[i])));
      }
      T* const target = static_cast<T*>(out.data) +
                        (b * out.batch_stride + row * out.row_stride + head * out.head_stride + at * width);
      *reinterpret_cast<Elements<T, width>*>(target) = rounded;
    }
  }
  if (args.output.lse == nullptr || args.split.lane() != 0) return;
  float* const lse =
      args.output.lse + (b * args.output.lse_batch_stride + head * args.output.lse_head_stride);
  for (int i = 0; i < rows_at_once; ++i) {
    Index const row = first + i * step;
    if (row >= state.rows) continue;
    lse[row] =
        l[i] == 0.0f ? -std::numeric_limits<float>::infinity() : natural_lse(state.m[row_zero + row], l[i]);
  }
}

/// Heads and batch entries lie along y, so that rows need no division.
template <class T, int width>
__global__ void __launch_bounds__(threads) finish_kernel(FinishArgs const args) {
  Index const step = Index{gridDim.x} * args.split.rows_of_block();
  for (Index lane = blockIdx.y; lane < args.state.batch * args.state.heads; lane += gridDim.y) {
    Index const b = lane / args.state.heads;
    Index const head = lane % args.state.heads;
    for (Index block = Index{blockIdx.x} * args.split.rows_of_block(); block < args.state.rows;
         block += step) {
      finish_group<T, width>(args, b, head, block + args.split.row());
    }
  }
}

template <class T>
void launch_finish_to(FinishArgs args, cudaStream_t stream) {
  MutableTensorView const& out = args.output.out;
  bool const wide = args.state.value_dim % 4 == 0 && aligned(args.state.o, 16) &&
                    aligned(out.data, 4 * sizeof(T)) && out.batch_stride % 4 == 0 &&
                    out.row_stride % 4 == 0 && out.head_stride % 4 == 0;
  args.vectors = wide ? args.state.value_dim / 4 : args.state.value_dim;
  args.split = row_threads(args.vectors);
  Index const lanes = args.state.batch * args.state.heads;
  Index const row_blocks = (args.state.rows + args.split.rows_of_block() - 1) / args.split.rows_of_block();
  unsigned const blocks = blocks_for(row_blocks * lanes);
  auto const y = static_cast<unsigned>(std::min<Index>({lanes, blocks, 65535}));
  dim3 const grid(static_cast<unsigned>(std::min<Index>(row_blocks, (blocks + y - 1) / y)), y);
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
                 .carried = start == Start::carried,
                 .split = {}};
  if (args.rows == 0) return;
  bool const wide = into.value_dim % 4 == 0 && aligned(from.o, 16) && aligned(into.o, 16);
  if (wide) args.vectors /= 4;
  args.split = row_threads(args.vectors);
  unsigned const blocks =
      blocks_for((args.rows + args.split.rows_of_block() - 1) / args.split.rows_of_block());
  if (wide) {
    merge_kernel<4><<<blocks, threads, 0, stream>>>(args);
  } else {
    merge_kernel<1><<<blocks, threads, 0, stream>>>(args);
  }
  PLAIT_CUDA(cudaGetLastError());
}

void launch_finish(StateView const& state, Output const& output, cudaStream_t stream) {
  if (state.batch * state.heads * state.rows == 0) return;
  FinishArgs const args{.state = state, .output = output, .vectors = 0, .split = {}};
  switch (output.out.dtype) {
    case DType::f32:
      return launch_finish_to<float>(args, stream);
    case DType::f16:
      return launch_finish_to<__half>(args, stream);
    case DType::bf16:
      return launch_finish_to<__nv_bfloat16>(args, stream);
  }
}

}  // namespace plait::cuda
