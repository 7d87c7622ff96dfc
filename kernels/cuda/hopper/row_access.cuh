// How a warpgroup reaches its rows outside: the state that a tile carries, the state or the output it leaves.
#pragma once

#include "softmax.cuh"

namespace plait::cuda::hopper {

/// This thread's place in its warpgroup. Read anew at each use: what is computed from it must not take
/// registers through the main loop.
struct Place {
  static __device__ __forceinline__ unsigned thread() {
    unsigned thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread % warpgroup_threads;
  }
  static __device__ __forceinline__ int warp() { return static_cast<int>(thread() / 32); }
  static __device__ __forceinline__ int lane() { return static_cast<int>(thread() % 32); }
  static __device__ __forceinline__ int quad() {
    return static_cast<int>(thread() % 32 / 4);
  }  ///< of the warp
  static __device__ __forceinline__ int quad_lane() { return static_cast<int>(thread() % 4); }
  /// Of the 64 rows: the first one of this warp, and the first one of this thread's two.
  static __device__ __forceinline__ int warp_row() { return static_cast<int>(thread() / 32 * 16); }
  static __device__ __forceinline__ int row() { return warp_row() + quad(); }
};

/// A tile's own O starts from zero, whatever it carries: the carried O is added to it, scaled to the tile's
/// last m, when the tile leaves. So it is needed at one place only, and late.
template <class C>
class RowAccess {
 public:
  __device__ __forceinline__ RowAccess(FoldArgs const& args, bool moves_rows, int warpgroup)
      : args_(args), moves_rows_(moves_rows), warpgroup_(warpgroup) {}

  /// The first of this thread's two rows; the other one is 8 below it.
  [[nodiscard]] __device__ __forceinline__ int row_of(int first_row) const {
    return first_row + warpgroup_ * 64 + Place::row();
  }

  /// m and l of the state that the tile carries, or the identity's. From here on the launch before this one
  /// has ended: nothing that it may read or write is touched earlier.
  [[nodiscard]] __device__ __forceinline__ Sums carried_sums(Work const& work) const {
    await_earlier_launch();
    allow_next_launch();
    Sums sums;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(work.tile.row_begin) + 8 * i;
      if (!args_.carried || row >= work.tile.row_end) continue;
      std::int64_t const at = state_row(args_, work, row);
      sums.m[i] = args_.m[at];
      sums.l[i] = args_.l[at];
    }
    return sums;
  }

  /// What leave() will need of O is asked for.
  __device__ __forceinline__ void enter(Work const& work) const {
    if constexpr (C::stages_rows) {
      if (is_staged(work.tile)) {
        ask_for({work.tile.row_begin + work.tile.state_shift + 64 * warpgroup_, work.head, work.batch});
      }
    }
  }
  /// No further tile comes.
  __device__ __forceinline__ void close() const {
    if constexpr (C::stages_rows) {
      if (moves_rows_) ask_for({-1, 0, 0});
    }
  }

  /// The tile's rows, with what they carry, become state or output.
  __device__ __forceinline__ void leave(Work const& work, Rows<C>& rows, Sums carried) {
    float l[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) l[i] = quad_sum(rows.l[i]);
    if constexpr (C::stages_rows) {
      if (is_staged(work.tile)) return leave_staged(rows, l);
      carried = carried_sums(work);
    }
    if (args_.carried) {
      float factors[2];
      join(rows, l, carried, factors);
      add_carried(work, rows, factors);
    }
    if (args_.finishes) {
      store_lse(work, rows, l);
      store_output(work, rows, l);
    } else {
      store_sums(work, rows, l);
      store_values(work, rows);
    }
  }

  /// A tile that sees no key: its state, which is carried or the identity, as state or as output. Several
  /// rows at a time, since each waits for device memory.
  __device__ __forceinline__ void settle(Work const& work) const {
    constexpr int rows_at_once = C::value_dim > 128  ? 2
                                 : C::warpgroups > 2 ? 4
                                                     : 8;  // by what registers are free
    await_earlier_launch();
    int const first = work.tile.row_begin + warpgroup_ * 64 + Place::warp_row();
    int const end = min(first + 16, work.tile.row_end);
#pragma unroll 1
    for (int row = first; row < end; row += rows_at_once) settle_rows<rows_at_once>(work, row, end);
  }

 private:
  using Element = typename C::Element;

  static __device__ __forceinline__ Shared<C>& shared() {
    return shared_memory<C>();
  }

  /// Rows [first, first + Count), as far as they lie below `end`.
  template <int Count>
  __device__ __forceinline__ void settle_rows(Work const& work, int first, int end) const {
    int const lane = Place::lane();
    float l[Count];
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      std::int64_t const at = state_row(args_, work, min(first + i, end - 1));
      float const m = args_.carried ? args_.m[at] : minus_infinity;
      l[i] = args_.carried ? args_.l[at] : 0.0f;
      if (lane != 0 || first + i >= end) continue;
      if (args_.finishes) {
        write_lse(args_, work.batch, work.head, first + i, m, l[i]);
      } else {
        args_.m[at] = m;
        args_.l[at] = l[i];
      }
    }
#pragma unroll 1
    for (int column = lane * 2; column < args_.value_dim; column += 64) {
      float2 pairs[Count];
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        std::int64_t const at = state_row(args_, work, min(first + i, end - 1));
        pairs[i] = args_.carried ? *reinterpret_cast<float2 const*>(args_.o + at * args_.value_dim + column)
                                 : float2{0.0f, 0.0f};
      }
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        int const row = first + i;
        if (row >= end) continue;
        if (args_.finishes) {
          float const reciprocal = __frcp_rn(l[i]);
          *reinterpret_cast<std::uint32_t*>(out_row(work, row) + column) =
              pack<Element>(finished(pairs[i].x, l[i], reciprocal), finished(pairs[i].y, l[i], reciprocal));
        } else {
          *reinterpret_cast<float2*>(args_.o + state_row(args_, work, row) * args_.value_dim + column) =
              pairs[i];
        }
      }
    }
  }
  [[nodiscard]] __device__ __forceinline__ bool is_staged(Tile const& tile) const {
    return uniform(moves_rows_ && is_box(args_, tile, warpgroup_));
  }
  __device__ __forceinline__ void ask_for(RowBox box) const {
    if (Place::thread() == 0) shared().wanted[warpgroup_] = box;
    __syncwarp();
    named_arrive(NamedBarrier<C>::rows_wanted + warpgroup_, NamedBarrier<C>::row_threads);
  }

  __device__ __forceinline__ void leave_staged(Rows<C>& rows, float (&l)[2]) {
    RowSums& sums = shared().sums[warpgroup_];
    int const row = Place::row();
    float factors[2] = {};
    barrier_wait(shared().rows_full[warpgroup_], stage_.parity());
    stage_.advance();
    if (args_.carried) {
      join(rows, l, {.m = {sums.m[row], sums.m[row + 8]}, .l = {sums.l[row], sums.l[row + 8]}}, factors);
      __syncwarp();
    }
    if (Place::quad_lane() == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        sums.m[row + 8 * i] = rows.m[i];
        sums.l[row + 8 * i] = l[i];
      }
    }
    if (args_.touches_state()) exchange(rows, factors);
    if (args_.finishes) {
      // Output takes the place of rows that other warps may still be reading.
      if (args_.carried) named_sync(NamedBarrier<C>::own + warpgroup_, warpgroup_threads);
      stage_output(rows, l);
    }
    ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
    __syncwarp();
    named_arrive(NamedBarrier<C>::rows_done + warpgroup_, NamedBarrier<C>::row_threads);
  }

  /// The carried sums join the tile's own: m and l are then both's. @param factors  by what the carried O is
  /// to be multiplied. Own m, if it is not much smaller, stays: then own O does too.
  __device__ __forceinline__ void join(Rows<C>& rows, float (&l)[2], Sums const& carried,
                                       float (&factors)[2]) const {
    bool const grows = carried.m[0] > rows.m[0] + lazy_exponents || carried.m[1] > rows.m[1] + lazy_exponents;
    if (__any_sync(0xffffffffu, grows)) {
      float own[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float const high = fmaxf(rows.m[i], carried.m[i]);
        own[i] = rows.m[i] == minus_infinity ? 0.0f : fast_exp2(rows.m[i] - high);
        rows.m[i] = high;
        l[i] *= own[i];
      }
      scale_values<C>(rows, own);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      factors[i] = carried.m[i] == minus_infinity ? 0.0f : fast_exp2(carried.m[i] - rows.m[i]);
      l[i] = fmaf(carried.l[i], factors[i], l[i]);
    }
  }

  /// Adds what the tile carries from the stage, and leaves the sum there if it is to be state again.
  __device__ __forceinline__ void exchange(Rows<C>& rows, float const (&factors)[2]) const {
    auto const row = static_cast<unsigned>(Place::row());
    auto const quad_lane = static_cast<unsigned>(Place::quad_lane());
#pragma unroll
    for (int chunk = 0; chunk < C::state_chunks; ++chunk) {
      auto* const box = reinterpret_cast<float2*>(&shared().stage.o[warpgroup_][chunk][0][0]);
      float2* at[2][4];
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        at[0][j] = box + (2 * swizzled_unit(row, 2 * j + quad_lane / 2) + quad_lane % 2);
        at[1][j] = at[0][j] + 8 * state_columns / 2;  // 8 rows below, where units are exchanged alike
      }
      float* const mine = rows.o + 16 * chunk;
      if (args_.carried) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          float2 const pair = *at[e % 2][e / 2];
          mine[2 * e] = fmaf(pair.x, factors[e % 2], mine[2 * e]);
          mine[2 * e + 1] = fmaf(pair.y, factors[e % 2], mine[2 * e + 1]);
        }
      }
      if (!args_.finishes) {
#pragma unroll
        for (int e = 0; e < 8; ++e) *at[e % 2][e / 2] = {mine[2 * e], mine[2 * e + 1]};
      }
    }
  }

  /// What rows are multiplied by to be finished; rows that saw no key become 0, whatever they are.
  __device__ __forceinline__ void reciprocals(Rows<C>& rows, float const (&l)[2], float (&by)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) by[i] = l[i] == 0.0f ? 0.0f : __frcp_rn(l[i]);
    if (!__any_sync(0xffffffffu, l[0] == 0.0f || l[1] == 0.0f)) return;
#pragma unroll
    for (int e = 0; e < Rows<C>::value_count; ++e) {
      if (l[e / 2 % 2] == 0.0f) rows.o[e] = 0.0f;
    }
  }

  __device__ __forceinline__ void stage_output(Rows<C>& rows, float const (&l)[2]) const {
    float by[2];
    reciprocals(rows, l, by);
    auto const lane = static_cast<unsigned>(Place::lane());
    // Matrices: rows 0 to 7 and 8 to 15 of columns 8·j to 8·j + 7, and the same of j + 1.
    unsigned const row = static_cast<unsigned>(Place::warp_row()) + lane % 16;
    unsigned const right = lane / 16;
#pragma unroll
    for (int chunk = 0; chunk < C::value_dim / chunk_dims; ++chunk) {
      auto* const box = reinterpret_cast<uint4*>(staged_output<C>(warpgroup_, chunk));
#pragma unroll
      for (int j = 0; j < chunk_dims / 8; j += 2) {
        float const* const o = rows.o + 4 * (chunk * chunk_dims / 8 + j);
        std::uint32_t const words[4] = {
            pack<Element>(o[0] * by[0], o[1] * by[0]), pack<Element>(o[2] * by[1], o[3] * by[1]),
            pack<Element>(o[4] * by[0], o[5] * by[0]), pack<Element>(o[6] * by[1], o[7] * by[1])};
        store_matrices(box + swizzled_unit(row, static_cast<unsigned>(j) + right), words);
      }
    }
  }

  /// Calls `use(pair of this thread's O, where it lies in the state)` for each pair of columns.
  template <class Use>
  __device__ __forceinline__ void for_each_pair(Work const& work, Rows<C>& rows, Use&& use) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(work.tile.row_begin) + 8 * i;
      if (row >= work.tile.row_end) continue;
      float* const o = args_.o + state_row(args_, work, row) * args_.value_dim + Place::quad_lane() * 2;
#pragma unroll
      for (int j = 0; j < C::value_dim / 8; ++j) {
        if (j * 8 >= args_.value_dim) break;  // a multiple of 8
        use(i, rows.o + 4 * j + 2 * i, reinterpret_cast<float2*>(o + j * 8));
      }
    }
  }
  __device__ __forceinline__ void add_carried(Work const& work, Rows<C>& rows,
                                              float const (&factors)[2]) const {
    for_each_pair(work, rows, [&](int i, float* mine, float2 const* at) {
      float2 const pair = *at;
      mine[0] = fmaf(pair.x, factors[i], mine[0]);
      mine[1] = fmaf(pair.y, factors[i], mine[1]);
    });
  }
  __device__ __forceinline__ void store_values(Work const& work, Rows<C>& rows) const {
    for_each_pair(work, rows, [](int, float const* mine, float2* at) { *at = {mine[0], mine[1]}; });
  }
  __device__ __forceinline__ void store_sums(Work const& work, Rows<C> const& rows,
                                             float const (&l)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(work.tile.row_begin) + 8 * i;
      if (row >= work.tile.row_end || Place::quad_lane() != 0) continue;
      std::int64_t const at = state_row(args_, work, row);
      args_.m[at] = rows.m[i];
      args_.l[at] = l[i];
    }
  }

  [[nodiscard]] __device__ __forceinline__ Element* out_row(Work const& work, int row) const {
    return static_cast<Element*>(args_.out) + work.batch * args_.out_batch_stride +
           row * args_.out_row_stride + work.head * args_.out_head_stride;
  }

  /// Of a quad's four lanes one writes the lse of the one row, and one that of the other.
  __device__ __forceinline__ void store_lse(Work const& work, Rows<C> const& rows,
                                            float const (&l)[2]) const {
    int const own = Place::quad_lane();
    int const row = row_of(work.tile.row_begin) + 8 * own;
    if (own < 2 && row < work.tile.row_end) {
      write_lse(args_, work.batch, work.head, row, own == 0 ? rows.m[0] : rows.m[1], own == 0 ? l[0] : l[1]);
    }
  }

  __device__ __forceinline__ void store_output(Work const& work, Rows<C>& rows, float const (&l)[2]) const {
    float by[2];
    reciprocals(rows, l, by);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(work.tile.row_begin) + 8 * i;
      Element* const out = out_row(work, row);
#pragma unroll
      for (int group = 0; group < C::value_dim / 32; ++group) {
        std::uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float const* const o = rows.o + 4 * (4 * group + j) + 2 * i;
          pairs[j] = pack<Element>(o[0] * by[i], o[1] * by[i]);
        }
        transpose_quad(pairs, Place::quad_lane());
        int const column = group * 32 + Place::quad_lane() * 8;
        if (row < work.tile.row_end && column < args_.value_dim) {
          *reinterpret_cast<uint4*>(out + column) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
      }
    }
  }

  /// The 4×4 values of four neighbouring lanes, transposed: lane q gets everyone's q-th.
  static __device__ __forceinline__ void transpose_quad(std::uint32_t (&v)[4], int lane) {
#pragma unroll
    for (int distance = 1; distance <= 2; distance *= 2) {
      bool const upper = (lane & distance) != 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if ((j & distance) != 0) continue;
        std::uint32_t const given = upper ? v[j] : v[j + distance];
        std::uint32_t const got = __shfl_xor_sync(0xffffffffu, given, distance);
        if (upper) {
          v[j] = got;
        } else {
          v[j + distance] = got;
        }
      }
    }
  }

  FoldArgs const& args_;
  bool moves_rows_;
  int warpgroup_;
  Ring<1> stage_;
};

}  // namespace plait::cuda::hopper
