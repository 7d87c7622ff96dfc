// Joins the states of a fold's parts: a row is the work of one to eight warps, each of which merges every so
// many of its parts, as there may be a hundred.
#include "call.hpp"
#include "finish.cuh"
#include "join_kernel.hpp"
#include "plait/rounding.hpp"

namespace plait::cuda {
namespace {

constexpr int warps = 8;
constexpr int largest_dim = 256;
constexpr int parts_at_once = 4;  ///< whose loads are in flight together
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

struct Args {
  JoinArgs join;
  StateView state;
  bool carried;
  bool finishes;
  Output output;
  int warps_per_row;    ///< a power of two
  int blocks_per_tile;  ///< along x
};

/// A row's state in a warp: each lane has `width` columns side by side, of each 32 · width.
template <int width>
struct RowState {
  static constexpr int groups = largest_dim / 32 / width;

  float m = minus_infinity;
  float l = 0.0f;
  float o[groups][width] = {};

  __device__ static int column(int group) {
    return (group * 32 + static_cast<int>(threadIdx.x % 32)) * width;
  }
  __device__ void load(StateView const& from, Index row) {
    m = from.m[row];
    l = from.l[row];
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      if (column(g) >= from.value_dim) break;
      auto const columns =
          *reinterpret_cast<Columns<float, width> const*>(from.o + row * from.value_dim + column(g));
#pragma unroll
      for (int i = 0; i < width; ++i) o[g][i] = columns.value[i];
    }
  }
  __device__ void merge(RowState const& other) {
    RowMerge const by = merge_rows(m, other.m);
    m = by.m;
    l = by(l, other.l);
#pragma unroll
    for (int g = 0; g < groups; ++g) {
#pragma unroll
      for (int i = 0; i < width; ++i) o[g][i] = by(o[g][i], other.o[g][i]);
    }
  }
  __device__ void store(StateView const& to, Index row) const {
    if (threadIdx.x % 32 == 0) {
      to.m[row] = m;
      to.l[row] = l;
    }
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      if (column(g) >= to.value_dim) break;
      Columns<float, width> columns;
#pragma unroll
      for (int i = 0; i < width; ++i) columns.value[i] = o[g][i];
      *reinterpret_cast<Columns<float, width>*>(to.o + row * to.value_dim + column(g)) = columns;
    }
  }
  template <class T>
  __device__ void finish(Output const& output, Index b, Index head, Index row) const {
    MutableTensorView const& out = output.out;
    T* const to =
        static_cast<T*>(out.data) + (b * out.batch_stride + row * out.row_stride + head * out.head_stride);
    float const reciprocal = __frcp_rn(l);
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      if (column(g) >= out.dim) break;
      Columns<T, width> columns;
#pragma unroll
      for (int i = 0; i < width; ++i) columns.value[i] = rounded_to<T>(finished(o[g][i], l, reciprocal));
      *reinterpret_cast<Columns<T, width>*>(to + column(g)) = columns;
    }
    if (threadIdx.x % 32 == 0) write_lse(output, b, head, row, m, l);
  }
};

/// Blocks along x: rows of a head; along y: heads of all batch entries.
template <class T, int width>
__global__ void __launch_bounds__(32 * warps, 4) join_kernel(__grid_constant__ Args const args) {
  __shared__ RowState<width> others[warps][32];
  int const warp = static_cast<int>(threadIdx.x) / 32;
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const part_of_row = warp % args.warps_per_row;
  SplitRows const rows = args.join.rows[static_cast<int>(blockIdx.x) / args.blocks_per_tile];
  int const block = static_cast<int>(blockIdx.x) % args.blocks_per_tile;
  int const within = (block * warps + warp) / args.warps_per_row;
  bool const exists = rows.row_begin + within < rows.row_end;
  StateView const& parts = args.join.parts;
  StateView const& state = args.state;
  Index const row = rows.row_begin + within;
  RowState<width> sum;
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");  // for the parts
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  if (exists) {
    if (args.carried && part_of_row == 0) sum.load(state, blockIdx.y * state.rows + row);
    Index const first = blockIdx.y * parts.rows + rows.state_row + within;
    for (int part = part_of_row; part < rows.parts; part += parts_at_once * args.warps_per_row) {
      RowState<width> next[parts_at_once];
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i) {
        int const own = part + i * args.warps_per_row;
        if (own < rows.parts) next[i].load(parts, first + Index{own} * args.join.stride);
      }
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i) sum.merge(next[i]);  // the identity changes nothing
    }
  }
  if (part_of_row > 0) others[warp][lane] = sum;
  __syncthreads();
  if (!exists || part_of_row > 0) return;
  for (int i = 1; i < args.warps_per_row; ++i) sum.merge(others[warp + i][lane]);
  if (args.finishes) {
    sum.template finish<T>(args.output, blockIdx.y / state.heads, blockIdx.y % state.heads, row);
  } else {
    sum.store(state, blockIdx.y * state.rows + row);
  }
}

template <class T>
void launch(Args const& args, cudaStream_t stream) {
  bool const wide = args.join.parts.value_dim % 4 == 0 && is_aligned(args.join.parts.o, 16) &&
                    is_aligned(args.state.o, 16) &&
                    (!args.finishes || moves_columns(args.output.out, sizeof(T), 4));
  dim3 const grid(static_cast<unsigned>(args.join.count * args.blocks_per_tile),
                  static_cast<unsigned>(args.join.parts.batch * args.join.parts.heads));
  // Where the GPU can, it is launched, and waits, while the last parts are folded.
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = 32 * warps;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = args.join.begins_early ? 1 : 0;
  PLAIT_CUDA(cudaLaunchKernelEx(&config, wide ? join_kernel<T, 4> : join_kernel<T, 1>, args));
}

}  // namespace

void launch_join(JoinArgs const& join, StateView const& state, Start start,
                 std::optional<Output> const& output, cudaStream_t stream) {
  int warps_per_row = 1;
  while (warps_per_row < warps && warps_per_row * parts_at_once < join.most_parts) warps_per_row *= 2;
  Args const args{.join = join,
                  .state = state,
                  .carried = start == Start::carried,
                  .finishes = output.has_value(),
                  .output = output.value_or(Output{}),
                  .warps_per_row = warps_per_row,
                  .blocks_per_tile = divided_up(join.stride * warps_per_row, warps)};
  with_type(output ? output->out.dtype : DType::f32,
            [&](auto zero) { launch<decltype(zero)>(args, stream); });
}

}  // namespace plait::cuda
