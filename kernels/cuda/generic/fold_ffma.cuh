// The generic fold of f32 without tensor cores, whose TF32 keeps too few digits: each thread owns four rows,
// every 16th key of a block, and the columns of O that go with it.
#pragma once

#include "../fold_kernel.hpp"
#include "ptx.cuh"
#include "tile_walk.cuh"

namespace plait::cuda {

/// What is compiled: head dimensions up to `dim`, tiles of `tile_rows` queries × `key_block` keys.
template <int dim_, int tile_rows_, int key_block_>
struct FfmaFold {
  static constexpr int dim = dim_;
  static constexpr int tile_rows = tile_rows_;
  static constexpr int key_block = key_block_;
  static constexpr int threads = tile_rows * 4;  ///< 16 share four rows
  static constexpr int pitch = dim + 4;          ///< floats from row to row in shared memory
  static constexpr int score_pitch = key_block + 4;
  static constexpr int keys = key_block / 16;  ///< of a thread
  static constexpr int groups = dim / 64;      ///< of four columns, of a thread
  static constexpr int shared_floats = (tile_rows + key_block) * pitch + tile_rows * score_pitch;
  static constexpr int shared_bytes = 4 * shared_floats;

  using Output = float[4][groups][4];
  using Scores = float[4][keys];
};

/// Copies `count` rows of `columns` elements to a tile of `rows` rows; zeros fill the rest.
template <class Fold, int rows>
__device__ void copy_rows(float* target, float const* source, std::int64_t stride, int count, int columns,
                          bool wide) {
  constexpr int chunks = Fold::dim / 4;
  constexpr int step = Fold::threads / chunks;
  int const column = static_cast<int>(threadIdx.x) % chunks * 4;
  int const first = static_cast<int>(threadIdx.x) / chunks;
  int const elements = min(max(columns - column, 0), 4);
#pragma unroll 4
  for (int row = first; row < rows; row += step) {
    std::uint32_t const to = shared_address(target + row * Fold::pitch + column);
    int const here = row < count ? elements : 0;
    float const* const from = here > 0 ? source + (row * stride + column) : source;
    if (wide) {
      copy_async<16>(to, from, 4 * here);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        bool const inside = i < here;
        copy_async<4>(to + 4 * static_cast<std::uint32_t>(i), inside ? from + i : source, inside ? 4 : 0);
      }
    }
  }
}

__device__ inline float4 load4(float const* shared) {
  return *reinterpret_cast<float4 const*>(shared);
}

/// s = q·k for the thread's rows and keys.
/// @param q  the thread's first row
/// @param k  the thread's first key
template <class Fold>
__device__ void score(typename Fold::Scores& s, float const* q, float const* k, int head_dim) {
#pragma unroll
  for (int i = 0; i < 4 * Fold::keys; ++i) s[i / Fold::keys][i % Fold::keys] = 0.0f;
#pragma unroll 1
  for (int column = 0; column < head_dim; column += 4) {
    float4 queries[4];
    float4 keys[Fold::keys];
#pragma unroll
    for (int i = 0; i < 4; ++i) queries[i] = load4(q + i * Fold::pitch + column);
#pragma unroll
    for (int j = 0; j < Fold::keys; ++j) keys[j] = load4(k + 16 * j * Fold::pitch + column);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < Fold::keys; ++j) {
        float sum = s[i][j];
        sum = fmaf(queries[i].x, keys[j].x, sum);
        sum = fmaf(queries[i].y, keys[j].y, sum);
        sum = fmaf(queries[i].z, keys[j].z, sum);
        s[i][j] = fmaf(queries[i].w, keys[j].w, sum);
      }
    }
  }
}

/// Scores of keys that a row does not see become −inf.
template <class Fold>
__device__ void mask(typename Fold::Scores& s, Segment const& segment, int row, int key) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    VisibleKeys const visible(segment, row + i);
#pragma unroll
    for (int j = 0; j < Fold::keys; ++j) {
      if (!visible.contains(key + 16 * j)) s[i][j] = -INFINITY;
    }
  }
}

/// Scores become weights; m and l of the thread's rows move to the new reference, O must shrink by `shrink`.
template <class Fold>
__device__ void weigh(typename Fold::Scores& s, float slope, float (&m)[4], float (&l)[4],
                      float (&shrink)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float top = -INFINITY;
#pragma unroll
    for (int j = 0; j < Fold::keys; ++j) top = fmaxf(top, s[i][j]);
#pragma unroll
    for (int other = 8; other > 0; other /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, other));
    Reference const moved(m[i], top * slope);
    shrink[i] = exp2_exact(m[i] - moved.reference);
    m[i] = moved.m;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < Fold::keys; ++j) {
      s[i][j] = exp2_exact(fmaf(s[i][j], slope, -moved.reference));
      sum += s[i][j];
    }
    l[i] = fmaf(l[i], shrink[i], sum);
  }
}

/// O ← shrink · O + weights · v. A block's products are summed on their own first: fewer, smaller roundings.
/// @param weights  the thread's first row
/// @param v        the thread's first column
template <class Fold>
__device__ void accumulate(typename Fold::Output& o, float const (&shrink)[4], float const* weights,
                           float const* v, int count) {
  typename Fold::Output sum = {};
#pragma unroll 1
  for (int key = 0; key < count; key += 4) {
    float w[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float4 const four = load4(weights + i * Fold::score_pitch + key);
      w[i][0] = four.x;
      w[i][1] = four.y;
      w[i][2] = four.z;
      w[i][3] = four.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int g = 0; g < Fold::groups; ++g) {
        float4 const value = load4(v + (key + j) * Fold::pitch + 64 * g);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[i][g][0] = fmaf(w[i][j], value.x, sum[i][g][0]);
          sum[i][g][1] = fmaf(w[i][j], value.y, sum[i][g][1]);
          sum[i][g][2] = fmaf(w[i][j], value.z, sum[i][g][2]);
          sum[i][g][3] = fmaf(w[i][j], value.w, sum[i][g][3]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int g = 0; g < Fold::groups; ++g) {
#pragma unroll
      for (int c = 0; c < 4; ++c) o[i][g][c] = fmaf(o[i][g][c], shrink[i], sum[i][g][c]);
    }
  }
}

template <class Fold>
__device__ RowSlice<Fold::groups, 4> row_slice() {
  int const column = static_cast<int>(threadIdx.x) % 16 * 4;
  return {.first = column, .step = 64, .leads = column == 0};
}

template <class Fold>
__device__ void begin_rows(FoldArgs const& args, Item const& item, bool wide, int row, float (&m)[4],
                           float (&l)[4], typename Fold::Output& o) {
  std::int64_t const first = first_state_row(args, item);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    m[i] = -INFINITY;
    l[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < Fold::groups * 4; ++c) o[i][c / 4][c % 4] = 0.0f;
    if (args.carried && row + i < item.tile.row_end) {
      read_state(args, first + row + i, row_slice<Fold>(), wide, m[i], l[i], o[i]);
    }
  }
}

template <class Fold>
__device__ void end_rows(FoldArgs const& args, Item const& item, WideAccess const& wide, int row,
                         float const (&m)[4], float (&l)[4], typename Fold::Output const& o) {
  std::int64_t const first = first_state_row(args, item);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int other = 8; other > 0; other /= 2) l[i] += __shfl_xor_sync(0xffffffffu, l[i], other);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (row + i >= item.tile.row_end) continue;
    if (args.finishes) {
      write_out<float>(args, item, row + i, row_slice<Fold>(), wide.out, m[i], l[i], o[i]);
    } else {
      write_state(args, first + row + i, row_slice<Fold>(), wide.state, m[i], l[i], o[i]);
    }
  }
}

template <class Fold>
__global__ void __launch_bounds__(Fold::threads, 2)
    ffma_fold_kernel(__grid_constant__ FoldArgs const args, WideAccess const wide) {
  extern __shared__ float4 shared4[];
  Item const item = find_item(args, blockIdx.x);
  if (item.empty() && args.carried && !args.finishes) return;
  float* const q = reinterpret_cast<float*>(shared4);
  float* const kv = q + Fold::tile_rows * Fold::pitch;  // keys, then the values of the same block
  float* const weights = kv + Fold::key_block * Fold::pitch;
  int const kv_head = item.head / args.group;
  int const my_row = static_cast<int>(threadIdx.x) / 16 * 4;
  int const my_key = static_cast<int>(threadIdx.x) % 16;
  int const row = item.tile.row_begin + my_row;

  KeyWalk walk(args, item.tile);
  if (!walk.done()) {
    copy_rows<Fold, Fold::tile_rows>(q, row_of<float>(args.q, item.b, item.tile.row_begin, item.head),
                                     args.q.row_stride, item.rows(), args.head_dim, wide.inputs);
  }
  float m[4];
  float l[4];
  typename Fold::Output o;
  begin_rows<Fold>(args, item, wide.state, row, m, l, o);
  Slope const slope(args.scale_log2);
#pragma unroll 1
  for (; !walk.done(); walk.advance(Fold::key_block)) {
    __syncthreads();  // every warp is done with the values before
    copy_rows<Fold, Fold::key_block>(kv, row_of<float>(args.k, item.b, walk.begin(), kv_head),
                                     args.k.row_stride, walk.count(Fold::key_block), args.head_dim,
                                     wide.inputs);
    wait_for_copies();
    __syncthreads();
    typename Fold::Scores s;
    score<Fold>(s, q + my_row * Fold::pitch, kv + my_key * Fold::pitch, args.head_dim);
    __syncthreads();  // every warp is done with the keys
    copy_rows<Fold, Fold::key_block>(kv, row_of<float>(args.v, item.b, walk.begin(), kv_head),
                                     args.v.row_stride, walk.count(Fold::key_block), args.value_dim,
                                     wide.inputs);
    if (slope.multiplies) {
#pragma unroll
      for (int i = 0; i < 4 * Fold::keys; ++i) s[i / Fold::keys][i % Fold::keys] *= slope.before;
    }
    if (walk.segment().masked != 0) mask<Fold>(s, walk.segment(), row, walk.begin() + my_key);
    float shrink[4];
    weigh<Fold>(s, slope.slope, m, l, shrink);
#pragma unroll
    for (int i = 0; i < 4 * Fold::keys; ++i) {
      int const j = i % Fold::keys;
      weights[(my_row + i / Fold::keys) * Fold::score_pitch + my_key + 16 * j] = s[i / Fold::keys][j];
    }
    wait_for_copies();
    __syncthreads();  // values and weights are here
    accumulate<Fold>(o, shrink, weights + my_row * Fold::score_pitch, kv + 4 * my_key,
                     walk.count(Fold::key_block));
  }
  end_rows<Fold>(args, item, wide, row, m, l, o);
}

template <class Fold>
void launch_ffma_fold(FoldArgs const& args, cudaStream_t stream) {
  PLAIT_CUDA(cudaFuncSetAttribute(ffma_fold_kernel<Fold>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Fold::shared_bytes));
  WideAccess const wide = wide_access(args, sizeof(float), 4);
  ffma_fold_kernel<Fold><<<item_count(args), Fold::threads, Fold::shared_bytes, stream>>>(args, wide);
  PLAIT_CUDA(cudaGetLastError());
}

template <class Fold>
FoldKernel ffma_fold() {
  return {.kind = CudaKernel::generic,
          .dtype = DType::f32,
          .head_dim = Fold::dim,
          .value_dim = Fold::dim,
          .tile_rows = Fold::tile_rows,
          .key_block = Fold::key_block,
          .launch = launch_ffma_fold<Fold>};
}

}  // namespace plait::cuda
