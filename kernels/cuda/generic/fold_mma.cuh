// The generic fold of 16-bit types: Dao 2023 (FlashAttention-2) on mma.sync, for compute capability 8.0 and
// later. Four warps of 16 query rows share each block of keys and values; weights stay in registers.
#pragma once

#include "../fold_kernel.hpp"
#include "ptx.cuh"
#include "tile_walk.cuh"

namespace plait::cuda {

/// What is compiled: head dimensions up to `dim`, blocks of `key_block` keys.
template <class T, int dim_, int key_block_, int blocks_per_multiprocessor_>
struct MmaFold {
  using Element = T;
  static constexpr int dim = dim_;
  static constexpr int key_block = key_block_;
  static constexpr int blocks_per_multiprocessor = blocks_per_multiprocessor_;
  static constexpr int threads = 128;
  static constexpr int tile_rows = 64;
  static constexpr int row_bytes = dim * 2;
  static constexpr int shared_bytes = (tile_rows + 2 * key_block) * row_bytes;
  static constexpr bool keeps_q = dim <= 128;  ///< q in registers, else read from shared memory each time
  static constexpr bool skips_padding = dim == 256;  ///< leaves out the products with zeros, in steps of 16

  using Output = float[dim / 8][4];
  using Scores = float[key_block / 8][4];
  using Fragment = std::uint32_t[4];
};

/// Bytes from the start of a tile in shared memory to a 16-byte chunk. The chunks of each row are permuted,
/// so that neither copies nor matrix loads meet bank conflicts.
template <class Fold>
__device__ std::uint32_t chunk_offset(int row, int chunk) {
  return static_cast<std::uint32_t>(row * Fold::row_bytes + ((chunk ^ (row & 7)) << 4));
}

/// Copies `count` rows of `columns` elements to a tile of `rows` rows; zeros fill the rest.
template <class Fold, int rows>
__device__ void copy_rows(std::uint32_t target, typename Fold::Element const* source, std::int64_t stride,
                          int count, int columns, bool wide) {
  constexpr int chunks = Fold::dim / 8;
  constexpr int step = Fold::threads / chunks;
  int const chunk = static_cast<int>(threadIdx.x) % chunks;
  int const first = static_cast<int>(threadIdx.x) / chunks;
  int const elements = min(max(columns - chunk * 8, 0), 8);
  if (wide) {
#pragma unroll 4
    for (int i = 0; i < rows / step; ++i) {
      int const row = first + i * step;
      bool const here = row < count && elements > 0;
      copy_async<16>(target + chunk_offset<Fold>(row, chunk),
                     here ? source + (row * stride + chunk * 8) : source, here ? 2 * elements : 0);
    }
    return;
  }
#pragma unroll 1
  for (int row = first; row < rows; row += step) {
    auto const* const from = reinterpret_cast<std::uint16_t const*>(source) + (row * stride + chunk * 8);
    std::uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t const low = row < count && 2 * i < elements ? from[2 * i] : 0;
      std::uint32_t const high = row < count && 2 * i + 1 < elements ? from[2 * i + 1] : 0;
      pair[i] = low | high << 16;
    }
    store_shared(target + chunk_offset<Fold>(row, chunk), {pair[0], pair[1], pair[2], pair[3]});
  }
}

/// Columns [16 · step, 16 · (step + 1)) of a warp's 16 query rows.
template <class Fold>
__device__ void load_q(typename Fold::Fragment& fragment, std::uint32_t q, int step) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const row = static_cast<int>(threadIdx.x) / 32 * 16 + lane % 16;
  load_matrices(fragment, q + chunk_offset<Fold>(row, 2 * step + lane / 16));
}

/// s = q·k for a warp's rows and a block of keys.
template <class Fold>
__device__ void score(typename Fold::Scores& s, typename Fold::Fragment const* kept_q, std::uint32_t q,
                      std::uint32_t k, int head_dim) {
  using Type = Half<typename Fold::Element>;
  int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Fold::key_block / 2; ++i) s[i / 4][i % 4] = 0.0f;
#pragma unroll(Fold::keeps_q ? Fold::dim / 16 : 2)  // more at once would not fit in the registers
  for (int step = 0; step < Fold::dim / 16; ++step) {
    if (Fold::skips_padding && step * 16 >= head_dim) break;
    typename Fold::Fragment a;
    if constexpr (Fold::keeps_q) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = kept_q[step][i];
    } else {
      load_q<Fold>(a, q, step);
    }
#pragma unroll
    for (int pair = 0; pair < Fold::key_block / 16; ++pair) {
      std::uint32_t b[4];
      int const key = pair * 16 + lane % 8 + lane / 16 * 8;
      load_matrices(b, k + chunk_offset<Fold>(key, 2 * step + lane / 8 % 2));
      Type::multiply(s[2 * pair], a, b[0], b[1]);
      Type::multiply(s[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

/// O += weights · v for a warp's rows and a block of keys.
template <class Fold>
__device__ void accumulate(typename Fold::Output& o, typename Fold::Scores const& weights, std::uint32_t v,
                           int value_dim) {
  using Type = Half<typename Fold::Element>;
  int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int step = 0; step < Fold::key_block / 16; ++step) {
    float const(&low)[4] = weights[2 * step];
    float const(&high)[4] = weights[2 * step + 1];
    std::uint32_t const a[4] = {Type::pack(low[0], low[1]), Type::pack(low[2], low[3]),
                                Type::pack(high[0], high[1]), Type::pack(high[2], high[3])};
#pragma unroll
    for (int pair = 0; pair < Fold::dim / 16; ++pair) {
      if (Fold::skips_padding && pair * 16 >= value_dim) break;
      std::uint32_t b[4];
      load_matrices_transposed(b, v + chunk_offset<Fold>(step * 16 + lane % 16, 2 * pair + lane / 16));
      Type::multiply(o[2 * pair], a, b[0], b[1]);
      Type::multiply(o[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

/// Scores of keys that a row does not see become −inf. `row` is the thread's first row, the other is 8 below.
template <class Fold>
__device__ void mask(typename Fold::Scores& s, Segment const& segment, int row, int first_key) {
  VisibleKeys const visible[2] = {VisibleKeys(segment, row), VisibleKeys(segment, row + 8)};
  int const column = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < Fold::key_block / 8; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!visible[i / 2].contains(column + tile * 8 + i % 2)) s[tile][i] = -INFINITY;
    }
  }
}

/// Scores become weights; m, l and O of the thread's two rows move to the new reference.
template <class Fold>
__device__ void weigh(typename Fold::Scores& s, float slope, float (&m)[2], float (&l)[2],
                      typename Fold::Output& o) {
  float shrink[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < Fold::key_block / 4; ++i) top = fmaxf(top, s[i / 2][2 * r + i % 2]);
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    Reference const moved(m[r], top * slope);
    shrink[r] = exp2f(m[r] - moved.reference);
    m[r] = moved.m;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < Fold::key_block / 4; ++i) {
      float& value = s[i / 2][2 * r + i % 2];
      value = exp2_fast(fmaf(value, slope, -moved.reference));
      sum += value;
    }
    l[r] = fmaf(l[r], shrink[r], sum);
  }
  if (!__any_sync(0xffffffffu, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < Fold::dim / 2; ++i) o[i / 4][i % 4] *= shrink[i % 4 / 2];
}

/// The thread's row r (of two) of O, two columns of every eight.
template <class Fold>
__device__ void take_row(typename Fold::Output const& o, int r, float (&row)[Fold::dim / 8][2]) {
#pragma unroll
  for (int tile = 0; tile < Fold::dim / 8; ++tile) {
    row[tile][0] = o[tile][2 * r];
    row[tile][1] = o[tile][2 * r + 1];
  }
}

template <class Fold>
__device__ void begin_rows(FoldArgs const& args, Item const& item, bool wide, int row, float (&m)[2],
                           float (&l)[2], typename Fold::Output& o) {
  int const lane = static_cast<int>(threadIdx.x) % 4;
  RowSlice<Fold::dim / 8, 2> const slice{.first = 2 * lane, .step = 8, .leads = lane == 0};
  std::int64_t const first = first_state_row(args, item);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float columns[Fold::dim / 8][2] = {};
    m[r] = -INFINITY;
    l[r] = 0.0f;
    if (args.carried && row + 8 * r < item.tile.row_end) {
      read_state(args, first + row + 8 * r, slice, wide, m[r], l[r], columns);
    }
#pragma unroll
    for (int tile = 0; tile < Fold::dim / 8; ++tile) {
      o[tile][2 * r] = columns[tile][0];
      o[tile][2 * r + 1] = columns[tile][1];
    }
  }
}

template <class Fold>
__device__ void end_rows(FoldArgs const& args, Item const& item, WideAccess const& wide, int row,
                         float const (&m)[2], float (&l)[2], typename Fold::Output const& o) {
  int const lane = static_cast<int>(threadIdx.x) % 4;
  RowSlice<Fold::dim / 8, 2> const slice{.first = 2 * lane, .step = 8, .leads = lane == 0};
  std::int64_t const first = first_state_row(args, item);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    l[r] += __shfl_xor_sync(0xffffffffu, l[r], 1);
    l[r] += __shfl_xor_sync(0xffffffffu, l[r], 2);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= item.tile.row_end) continue;
    float columns[Fold::dim / 8][2];
    take_row<Fold>(o, r, columns);
    if (args.finishes) {
      write_out<typename Fold::Element>(args, item, row + 8 * r, slice, wide.out, m[r], l[r], columns);
    } else {
      write_state(args, first + row + 8 * r, slice, wide.state, m[r], l[r], columns);
    }
  }
}

template <class Fold>
__global__ void __launch_bounds__(Fold::threads, Fold::blocks_per_multiprocessor)
    mma_fold_kernel(__grid_constant__ FoldArgs const args, WideAccess const wide) {
  extern __shared__ uint4 shared[];
  using T = typename Fold::Element;
  Item const item = find_item(args, blockIdx.x);
  if (item.empty() && args.carried && !args.finishes) return;
  std::uint32_t const q = shared_address(shared);
  std::uint32_t const k = q + Fold::tile_rows * Fold::row_bytes;
  std::uint32_t const v = k + Fold::key_block * Fold::row_bytes;
  int const kv_head = item.head / args.group;
  auto const copy_keys = [&](KeyWalk const& at) {
    copy_rows<Fold, Fold::key_block>(k, row_of<T>(args.k, item.b, at.begin(), kv_head), args.k.row_stride,
                                     at.count(Fold::key_block), args.head_dim, wide.inputs);
  };

  KeyWalk walk(args, item.tile);
  if (!walk.done()) {
    copy_rows<Fold, Fold::tile_rows>(q, row_of<T>(args.q, item.b, item.tile.row_begin, item.head),
                                     args.q.row_stride, item.rows(), args.head_dim, wide.inputs);
    copy_keys(walk);
  }
  int const row =
      item.tile.row_begin + static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  float m[2];
  float l[2];
  typename Fold::Output o;
  begin_rows<Fold>(args, item, wide.state, row, m, l, o);
  Slope const slope(args.scale_log2);
  typename Fold::Fragment kept_q[Fold::keeps_q ? Fold::dim / 16 : 1];
  if (!walk.done() && Fold::keeps_q) {
    wait_for_copies();
    __syncthreads();
#pragma unroll
    for (int step = 0; step < Fold::dim / 16; ++step) {
      if constexpr (Fold::keeps_q) load_q<Fold>(kept_q[step], q, step);
    }
  }
#pragma unroll 1
  while (!walk.done()) {
    KeyWalk next = walk;
    next.advance(Fold::key_block);
    wait_for_copies();
    __syncthreads();  // the keys are here, and every warp is done with the values before
    copy_rows<Fold, Fold::key_block>(v, row_of<T>(args.v, item.b, walk.begin(), kv_head), args.v.row_stride,
                                     walk.count(Fold::key_block), args.value_dim, wide.inputs);
    typename Fold::Scores s;
    score<Fold>(s, kept_q, q, k, args.head_dim);
    wait_for_copies();
    __syncthreads();  // the values are here, and every warp is done with the keys
    if (!next.done()) copy_keys(next);
    if (slope.multiplies) {
#pragma unroll
      for (int i = 0; i < Fold::key_block / 2; ++i) s[i / 4][i % 4] *= slope.before;
    }
    if (walk.segment().masked != 0) mask<Fold>(s, walk.segment(), row, walk.begin());
    weigh<Fold>(s, slope.slope, m, l, o);
    accumulate<Fold>(o, s, v, args.value_dim);
    walk = next;
  }
  end_rows<Fold>(args, item, wide, row, m, l, o);
}

template <class Fold>
void launch_mma_fold(FoldArgs const& args, cudaStream_t stream) {
  PLAIT_CUDA(cudaFuncSetAttribute(mma_fold_kernel<Fold>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Fold::shared_bytes));
  WideAccess const wide = wide_access(args, sizeof(typename Fold::Element), 2);
  mma_fold_kernel<Fold><<<item_count(args), Fold::threads, Fold::shared_bytes, stream>>>(args, wide);
  PLAIT_CUDA(cudaGetLastError());
}

template <class Fold>
FoldKernel mma_fold(DType dtype) {
  return {.kind = CudaKernel::generic,
          .dtype = dtype,
          .head_dim = Fold::dim,
          .value_dim = Fold::dim,
          .tile_rows = Fold::tile_rows,
          .key_block = Fold::key_block,
          .launch = launch_mma_fold<Fold>};
}

}  // namespace plait::cuda
