// What the generic kernels share: which tile a block of threads owns, the keys it visits, and how rows of the
// state and of the output are read and written.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../call.hpp"
#include "../finish.cuh"
#include "../fold_args.hpp"

namespace plait::cuda {

/// Which accesses of a launch may be wide: what pointers, strides and dimensions allow.
struct WideAccess {
  bool inputs;  ///< 16 bytes of q, k and v
  bool state;   ///< `width` columns of O
  bool out;     ///< `width` columns of out
};

/// @param element_bytes  of q, k, v and out
/// @param width          columns that a thread of the kernel owns side by side
inline WideAccess wide_access(FoldArgs const& args, int element_bytes, int width) {
  auto const bytes = static_cast<std::size_t>(element_bytes);
  int const at_once = 16 / element_bytes;
  TensorArg const out{args.out, args.out_batch_stride, args.out_row_stride, args.out_head_stride};
  bool const whole = args.value_dim % width == 0;
  return {.inputs = moves_columns(args.q, bytes, at_once) && moves_columns(args.k, bytes, at_once) &&
                    moves_columns(args.v, bytes, at_once),
          .state = whole && is_aligned(args.o, sizeof(float) * static_cast<std::size_t>(width)),
          .out = whole && moves_columns(out, bytes, width)};
}

/// One block of threads per tile and query head.
inline unsigned item_count(FoldArgs const& args) {
  return static_cast<unsigned>(args.tile_count) * static_cast<unsigned>(args.batch * args.q_heads);
}

/// A tile of one query head.
struct Item {
  Tile tile;
  int b;
  int head;

  [[nodiscard]] __device__ int rows() const { return tile.row_end - tile.row_begin; }
  [[nodiscard]] __device__ bool empty() const { return tile.segment_begin == tile.segment_end; }
};

/// Blocks start in the order of their index: the longest tiles of a few heads first, then the next few heads,
/// so that the keys and values of the heads at work stay in the L2 cache.
__device__ inline Item find_item(FoldArgs const& args, unsigned index) {
  unsigned const heads = static_cast<unsigned>(args.batch * args.q_heads);
  unsigned const at_once = static_cast<unsigned>(args.heads_at_once);
  unsigned const tiles = static_cast<unsigned>(args.tile_count);
  unsigned const first_head = index / (at_once * tiles) * at_once;
  unsigned const within = index % (at_once * tiles);
  unsigned const here = min(at_once, heads - first_head);
  unsigned const head = first_head + within % here;
  return {.tile = args.tiles[within / here],
          .b = static_cast<int>(head / static_cast<unsigned>(args.q_heads)),
          .head = static_cast<int>(head % static_cast<unsigned>(args.q_heads))};
}

/// Where row 0 of the block would lie in the state, were it a row of the item's tile.
__device__ inline std::int64_t first_state_row(FoldArgs const& args, Item const& item) {
  return (std::int64_t{item.b} * args.q_heads + item.head) * args.state_rows + item.tile.state_shift;
}

/// Address of element (b, row, head, 0).
template <class T>
__device__ T const* row_of(TensorArg const& tensor, int b, int row, int head) {
  return static_cast<T const*>(tensor.data) +
         (b * tensor.batch_stride + row * tensor.row_stride + head * tensor.head_stride);
}

/// The key blocks of a tile, one after the other.
class KeyWalk {
 public:
  __device__ KeyWalk(FoldArgs const& args, Tile const& tile)
      : at_(args.segments + tile.segment_begin), end_(args.segments + tile.segment_end) {
    enter();
  }
  [[nodiscard]] __device__ bool done() const { return at_ == end_; }
  [[nodiscard]] __device__ int begin() const { return begin_; }
  /// Keys of the block, at most `key_block`.
  [[nodiscard]] __device__ int count(int key_block) const { return min(key_block, stop_ - begin_); }
  [[nodiscard]] __device__ Segment const& segment() const { return *at_; }
  __device__ void advance(int key_block) {
    begin_ += key_block;
    if (begin_ < stop_) return;
    ++at_;
    enter();
  }

 private:
  __device__ void enter() {
    if (at_ == end_) return;
    begin_ = at_->begin;
    stop_ = at_->end;
  }

  Segment const* at_;
  Segment const* end_;
  int begin_ = 0;
  int stop_ = 0;
};

/// The keys [first, last] that a row sees in a masked segment; none: first > last.
struct VisibleKeys {
  int first;
  int last;

  __device__ VisibleKeys(Segment const& segment, int row) : first(row + segment.lo), last(segment.end - 1) {
    last = min(last, row + segment.hi);
    if (row < segment.row_begin || row >= segment.row_end) last = first - 1;
  }
  [[nodiscard]] __device__ bool contains(int key) const { return first <= key && key <= last; }
};

/// How scores s = q·k become exponents: slope · s − m with slope > 0, so that the largest score has the
/// largest exponent. Where scale ≤ 0, scores are multiplied by it first.
struct Slope {
  float slope;
  float before;
  bool multiplies;

  __device__ explicit Slope(float scale_log2)
      : slope(scale_log2 > 0.0f ? scale_log2 : 1.0f), before(scale_log2), multiplies(!(scale_log2 > 0.0f)) {}
};

/// A row's reference exponent moves from `old_m` to `m` = max(old_m, top): earlier weights are multiplied by
/// `shrink`, new ones are 2^(slope · s − reference). Where m is −inf, 0 stands in: no −inf − (−inf) is
/// formed.
struct Reference {
  float m;
  float reference;

  __device__ Reference(float old_m, float top) : m(fmaxf(old_m, top)) {
    reference = m == -INFINITY ? 0.0f : m;
  }
};

/// Columns [column, column + width) of a row of `dim`; those past its end are 0.
template <int width>
__device__ void load_columns(float const* row, int column, int dim, bool wide, float (&target)[width]) {
  if (wide && column < dim) {
    auto const columns = *reinterpret_cast<Columns<float, width> const*>(row + column);
#pragma unroll
    for (int i = 0; i < width; ++i) target[i] = columns.value[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < width; ++i) target[i] = column + i < dim ? row[column + i] : 0.0f;
}

template <class T, int width>
__device__ void store_columns(T* row, int column, int dim, bool wide, float const (&source)[width]) {
  if (wide) {
    if (column >= dim) return;
    Columns<T, width> columns;
#pragma unroll
    for (int i = 0; i < width; ++i) columns.value[i] = rounded_to<T>(source[i]);
    *reinterpret_cast<Columns<T, width>*>(row + column) = columns;
    return;
  }
#pragma unroll
  for (int i = 0; i < width; ++i) {
    if (column + i < dim) row[column + i] = rounded_to<T>(source[i]);
  }
}

/// One row of a tile, as a thread holds it: columns first, first + step, ..., `width` of each.
template <int groups, int width>
struct RowSlice {
  int first;
  int step;
  bool leads;  ///< this thread reads and writes m, l and lse for the row
};

/// The row's state from memory; l goes to the leading thread alone, as each thread sums a part of it.
template <int groups, int width>
__device__ void read_state(FoldArgs const& args, std::int64_t row, RowSlice<groups, width> slice, bool wide,
                           float& m, float& l, float (&o)[groups][width]) {
  m = args.m[row];
  l = slice.leads ? args.l[row] : 0.0f;
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    load_columns(args.o + row * args.value_dim, slice.first + g * slice.step, args.value_dim, wide, o[g]);
  }
}

template <int groups, int width>
__device__ void write_state(FoldArgs const& args, std::int64_t row, RowSlice<groups, width> slice, bool wide,
                            float m, float l, float const (&o)[groups][width]) {
  if (slice.leads) {
    args.m[row] = m;
    args.l[row] = l;
  }
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    store_columns(args.o + row * args.value_dim, slice.first + g * slice.step, args.value_dim, wide, o[g]);
  }
}

/// @param row  of the query block
template <class T, int groups, int width>
__device__ void write_out(FoldArgs const& args, Item const& item, int row, RowSlice<groups, width> slice,
                          bool wide, float m, float l, float const (&o)[groups][width]) {
  T* const out = static_cast<T*>(args.out) + (item.b * args.out_batch_stride + row * args.out_row_stride +
                                              item.head * args.out_head_stride);
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    float values[width];
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = finished(o[g][i], l, __frcp_rn(l));
    store_columns(out, slice.first + g * slice.step, args.value_dim, wide, values);
  }
  if (slice.leads) write_lse(args, item.b, item.head, row, m, l);
}

}  // namespace plait::cuda
