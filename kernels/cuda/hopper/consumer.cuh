// A consumer warpgroup of the Hopper fold: 64 query rows whose state stays in registers.
#pragma once

#include "../finish.cuh"
#include "softmax.cuh"

namespace plait::cuda::hopper {

template <class C>
class Consumer {
 public:
  __device__ __forceinline__ explicit Consumer(FoldArgs const& args)
      : args_(args),
        // The same for the whole warp, which the compiler cannot see.
        warpgroup_(__shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / warpgroup_threads - 1, 0)) {}

  __device__ __forceinline__ void run() {
    // Turns go round in order from the first warpgroup on: those after it have, as it were, just had theirs.
    if constexpr (C::ping_pong) {
      if (warpgroup_ > 0) named_arrive(turn_barrier(0), turn_threads);
      if (warpgroup_ > 1) named_arrive(turn_barrier(1), turn_threads);
    }
    if (!find_work()) return;
    Rows<C> rows;
    first_step(rows);
    for (;;) {
      other_steps(rows);
      Sums next;
      bool const more = find_work();
      if (more) {
        turn_step(rows, next);
      } else {
        last_step(rows);
      }
      store(rows);
      if (!more) break;
      begin(rows, next);
    }
  }

 private:
  using Element = typename C::Element;
  static constexpr int turn_threads = warpgroup_threads * C::warpgroups;

  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }
  /// This thread among the block's; among its warpgroup's; … Read anew at each use: what is computed from it
  /// must not take registers through the main loop.
  static __device__ __forceinline__ int index() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
  }
  static __device__ __forceinline__ int thread() { return index() % warpgroup_threads; }
  static __device__ __forceinline__ int lane() { return thread() % 32; }
  static __device__ __forceinline__ int quad_lane() { return thread() % 4; }

  /// Named barrier 0 is __syncthreads'.
  static __device__ __forceinline__ int turn_barrier(int warpgroup) { return 1 + warpgroup; }
  __device__ __forceinline__ void await_turn() const {
    if constexpr (C::ping_pong) named_sync(turn_barrier(warpgroup_), turn_threads);
  }
  /// Every other warpgroup gets a turn before this one's next.
  __device__ __forceinline__ void pass_turn() const {
    if constexpr (C::ping_pong) {
      int const next = warpgroup_ + 1 == C::warpgroups ? 0 : warpgroup_ + 1;
      named_arrive(turn_barrier(next), turn_threads);
      if constexpr (C::warpgroups == 3) {
        named_arrive(turn_barrier(next + 1 == C::warpgroups ? 0 : next + 1), turn_threads);
      }
    }
  }

  /// Waits for the next tile that sees a key; those before it are settled at once. @returns whether there is
  /// one
  __device__ __forceinline__ bool find_work() {
    for (;;) {
      barrier_wait(shared().work_full[work_.stage()], work_.parity());
      Work const& work = found();
      if (work.tile.row_begin < 0) return false;
      if (work.tile.segment_begin != work.tile.segment_end) return true;
      if (args_.finishes || !args_.carried) settle(work);
      release(shared().work_empty[work_.stage()]);
      work_.advance();
    }
  }
  [[nodiscard]] __device__ __forceinline__ Work const& found() const { return shared().work[work_.stage()]; }
  /// The tile that was found becomes this warp's own, and the producer may hand over another.
  __device__ __forceinline__ void take_work() {
    constexpr int words = sizeof(Work) / sizeof(std::int32_t);
    static_assert(words <= 32);
    __syncwarp();
    if (lane() < words) {
      reinterpret_cast<std::int32_t*>(&current())[lane()] =
          reinterpret_cast<std::int32_t const*>(&found())[lane()];
    }
    release(shared().work_empty[work_.stage()]);
    work_.advance();
  }
  static __device__ __forceinline__ Work& current() {
    return shared().current[threadIdx.x / 32 - warpgroup_threads / 32];
  }

  /// Scores and weights of the first tile's first block.
  __device__ __forceinline__ void first_step(Rows<C>& rows) {
    float s[Rows<C>::score_count];
    Sums sums;
    await_scores();
    wgmma_fence();
    multiply_scores(s);
    wgmma_wait<0>();
    pin(s);
    take_scores();
    weigh_first(s, sums);
    round_weights<C>(s, rows);
    pin(rows.p);
    begin(rows, sums);
  }

  /// From the second block of the tile on.
  __device__ __forceinline__ void other_steps(Rows<C>& rows) {
    int at = current().tile.segment_begin;
    int left = current().first.blocks - 1;
    bool masked = current().first.masked != 0;
    bool last = at + 1 == current().tile.segment_end;
    if (left == 0 && last) release(shared().q_empty);
    for (;;) {
      if (masked) {
        for (; left > 0; --left) step<true>(at, left, last, rows);
      } else {
        for (; left > 0; --left) step<false>(at, left, last, rows);
      }
      if (last) return;
      ++at;
      left = args_.segments[at].blocks;
      masked = args_.segments[at].masked != 0;
      last = at + 1 == current().tile.segment_end;
    }
  }

  /// Scores and weights of the next block, while the values of the last one are added. `left` blocks of
  /// segment `at`, this one included, which is the tile's `last` segment or not.
  template <bool Masked>
  __device__ __forceinline__ void step(int at, int left, bool last, Rows<C>& rows) {
    float s[Rows<C>::score_count];
    float rescale[2];
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    multiply_both(s, rows);
    if (last && left == 1) release(shared().q_empty);
    if constexpr (Masked) mask(s, args_.segments[at], args_.segments[at].blocks - left, current());
    bool const rescales = weigh<Masked>(s, rows.m, rows.l, rescale, scale());
    take_values(rows);
    round_weights<C>(s, rows);
    if (rescales) scale_values(rows, rescale);
  }

  /// From one tile to the next: scores and weights of the next one's first block, while the values of this
  /// one's last block are added.
  __device__ __forceinline__ void turn_step(Rows<C>& rows, Sums& next) {
    float s[Rows<C>::score_count];
    await_scores();
    multiply_both(s, rows);
    weigh_first(s, next);
    take_values(rows);
    round_weights<C>(s, rows);
    pin(rows.p);  // before the rows that are stored need registers of their own
  }

  /// The tile that was found begins: its weights are there.
  __device__ __forceinline__ void begin(Rows<C>& rows, Sums const& sums) {
    take_work();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      rows.m[i] = sums.m[i];
      rows.l[i] = sums.l[i];
    }
    load_values(rows);
    if (args_.carried) scale_values(rows, sums.rescale);
  }

  /// The values of the last tile's last block.
  __device__ __forceinline__ void last_step(Rows<C>& rows) {
    pin(rows.p);
    pin(rows.o);
    add_values(rows);
    wgmma_wait<0>();
    pin(rows.o);
    release(shared().v_empty[k_.back(1).stage()]);
  }

  /// Until the query tile and the first key block of the tile that was found are there.
  __device__ __forceinline__ void await_scores() {
    barrier_wait(shared().q_full, q_.parity());
    q_.advance();
    if (args_.scale_log2 <= 0.0f) make_scale_positive();
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
  }
  /// The weights want a positive scale. For a negative one this warp's queries change their sign, for 0 they
  /// become 0, and scale() is what then belongs to them.
  __device__ __forceinline__ void make_scale_positive() const {
    std::uint32_t const flip = args_.scale_log2 < 0.0f ? 0x80008000u : 0u;
    std::uint32_t const keep = args_.scale_log2 < 0.0f ? ~0u : 0u;
    int const row = row_of(0) / 16 * 16;
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      auto* const pairs = reinterpret_cast<std::uint32_t*>(&shared().q[chunk][row]);
      for (int at = lane(); at < 16 * chunk_dims / 2; at += 32) pairs[at] = (pairs[at] & keep) ^ flip;
    }
    ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
    named_sync(1 + C::warpgroups + warpgroup_, warpgroup_threads);
  }
  [[nodiscard]] __device__ __forceinline__ float scale() const {
    return args_.scale_log2 == 0.0f ? 1.0f : fabsf(args_.scale_log2);
  }
  __device__ __forceinline__ void take_scores() {
    release(shared().k_empty[k_.stage()]);
    k_.advance();
  }
  /// Issues the next scores and the last values; returns when the scores are there.
  __device__ __forceinline__ void multiply_both(float (&s)[Rows<C>::score_count], Rows<C>& rows) {
    await_turn();
    pin(rows.p);
    pin(rows.o);
    wgmma_fence();
    multiply_scores(s);
    add_values(rows);
    pass_turn();
    wgmma_wait<1>();
    pin(s);
    take_scores();
  }
  /// Returns when the last values have been added.
  __device__ __forceinline__ void take_values(Rows<C>& rows) {
    wgmma_wait<0>();
    pin(rows.o);
    release(shared().v_empty[k_.back(2).stage()]);
  }
  __device__ __forceinline__ void weigh_first(float (&s)[Rows<C>::score_count], Sums& sums) const {
    load_sums(sums);
    sums.rescale[0] = sums.rescale[1] = 1.0f;
    if (found().first.masked != 0) mask(s, found().first, 0, found());
    weigh<true>(s, sums.m, sums.l, sums.rescale, scale());
  }
  __device__ __forceinline__ void multiply_scores(float (&s)[Rows<C>::score_count]) const {
    std::uint64_t const q = descriptor(shared().q, 0) + descriptor_step(64 * 128) * warpgroup_;
    std::uint64_t const k = descriptor(shared().k, 0) + descriptor_step(sizeof shared().k[0]) * k_.stage();
    multiply_transposed<Element, C::key_block, C::head_dim, C::tile_rows>(s, q, k);
    wgmma_commit();
  }
  /// Issues the product of the weights and the values of the block before the one whose scores come next.
  __device__ __forceinline__ void add_values(Rows<C>& rows) const {
    auto const at = k_.back(1);
    barrier_wait(shared().v_full[at.stage()], at.parity());
    std::uint64_t const v =
        descriptor(shared().v, sizeof shared().v[0][0]) + descriptor_step(sizeof shared().v[0]) * at.stage();
    wgmma_fence();
    multiply_add<Element, C::value_dim, C::key_block>(rows.o, rows.p, v);
    wgmma_commit();
  }
  __device__ __forceinline__ void scale_values(Rows<C>& rows, float const (&rescale)[2]) const {
#pragma unroll
    for (int e = 0; e < Rows<C>::value_count; ++e) rows.o[e] *= rescale[e / 2 % 2];
  }
  __device__ __forceinline__ void mask(float (&s)[Rows<C>::score_count], Segment const& segment, int block,
                                       Work const& work) const {
    mask_scores(s, segment, row_of(work.tile.row_begin),
                segment.begin + block * C::key_block + quad_lane() * 2);
  }
  /// One arrival per warp, when all of it is done with the stage.
  __device__ __forceinline__ void release(Barrier& empty) const {
    __syncwarp();
    if (lane() == 0) barrier_arrive(empty);
  }

  /// The first of this thread's two rows; the other one is 8 below it.
  [[nodiscard]] __device__ __forceinline__ int row_of(int first_row) const {
    return first_row + warpgroup_ * 64 + thread() / 32 * 16 + lane() / 4;
  }
  /// This thread's columns are column_of(j) and the one after it.
  [[nodiscard]] __device__ __forceinline__ int column_of(int j) const {
    return j * 8 + quad_lane() * 2;
  }

  __device__ __forceinline__ void load_sums(Sums& sums) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(found().tile.row_begin) + 8 * i;
      bool const reads = args_.carried && row < found().tile.row_end;
      std::int64_t const at = state_row(args_, found(), row);
      sums.m[i] = reads ? args_.m[at] : minus_infinity;
      sums.l[i] = reads && quad_lane() == 0 ? args_.l[at] : 0.0f;  // one lane of the quad carries the sum
    }
  }

  __device__ __forceinline__ void load_values(Rows<C>& rows) const {
#pragma unroll
    for (int e = 0; e < Rows<C>::value_count; ++e) rows.o[e] = 0.0f;
    if (!args_.carried) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(current().tile.row_begin) + 8 * i;
      if (row >= current().tile.row_end) continue;
      float const* const o = args_.o + state_row(args_, current(), row) * args_.value_dim + column_of(0);
#pragma unroll
      for (int j = 0; j < C::value_dim / 8; ++j) {
        if (j * 8 >= args_.value_dim) break;  // a multiple of 8
        float2 const pair = *reinterpret_cast<float2 const*>(o + j * 8);
        rows.o[4 * j + 2 * i] = pair.x;
        rows.o[4 * j + 2 * i + 1] = pair.y;
      }
    }
  }

  /// This warp's rows, as state or as output.
  __device__ __forceinline__ void store(Rows<C>& rows) const {
    if (args_.finishes) {
      finish(rows);
    } else {
      store_state(rows);
    }
  }

  __device__ __forceinline__ void store_state(Rows<C>& rows) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(current().tile.row_begin) + 8 * i;
      float const l = quad_sum(rows.l[i]);
      if (row >= current().tile.row_end) continue;
      std::int64_t const at = state_row(args_, current(), row);
      if (quad_lane() == 0) {
        args_.m[at] = rows.m[i];
        args_.l[at] = l;
      }
      float* const o = args_.o + at * args_.value_dim + column_of(0);
#pragma unroll
      for (int j = 0; j < C::value_dim / 8; ++j) {
        if (j * 8 >= args_.value_dim) break;
        *reinterpret_cast<float2*>(o + j * 8) = {rows.o[4 * j + 2 * i], rows.o[4 * j + 2 * i + 1]};
      }
    }
  }

  __device__ __forceinline__ void write_lse(Work const& work, int row, float m, float l) const {
    if (args_.lse == nullptr) return;
    args_.lse[work.batch * args_.lse_batch_stride + work.head * args_.lse_head_stride + row] =
        l == 0.0f ? minus_infinity : natural_lse(m, l);
  }
  [[nodiscard]] __device__ __forceinline__ Element* out_row(Work const& work, int row) const {
    return static_cast<Element*>(args_.out) + work.batch * args_.out_batch_stride +
           row * args_.out_row_stride + work.head * args_.out_head_stride;
  }

  __device__ __forceinline__ void finish(Rows<C>& rows) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const row = row_of(current().tile.row_begin) + 8 * i;
      float const l = quad_sum(rows.l[i]);
      bool const inside = row < current().tile.row_end;
      float const reciprocal = __frcp_rn(l);
      if (inside && quad_lane() == 0) write_lse(current(), row, rows.m[i], l);
      Element* const out = out_row(current(), row);
#pragma unroll
      for (int group = 0; group < C::value_dim / 32; ++group) {
        std::uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float const* const o = rows.o + 4 * (4 * group + j) + 2 * i;
          pairs[j] = pack<Element>(finished(o[0], l, reciprocal), finished(o[1], l, reciprocal));
        }
        transpose_quad(pairs, quad_lane());
        int const column = group * 32 + quad_lane() * 8;
        if (inside && column < args_.value_dim) {
          *reinterpret_cast<uint4*>(out + column) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
      }
    }
  }

  /// A tile that sees no key: its state, which is carried or the identity, as state or as output.
  __device__ __forceinline__ void settle(Work const& work) const {
    int const first = work.tile.row_begin + warpgroup_ * 64 + thread() / 32 * 16;
    int const end = min(first + 16, work.tile.row_end);
    for (int row = first; row < end; ++row) {
      std::int64_t const at = state_row(args_, work, row);
      float const m = args_.carried ? args_.m[at] : minus_infinity;
      float const l = args_.carried ? args_.l[at] : 0.0f;
      float const reciprocal = __frcp_rn(l);
      if (lane() == 0 && args_.finishes) write_lse(work, row, m, l);
      if (lane() == 0 && !args_.finishes) {
        args_.m[at] = m;
        args_.l[at] = l;
      }
      for (int column = lane() * 2; column < args_.value_dim; column += 64) {
        float* const o = args_.o + at * args_.value_dim + column;
        float2 const pair = args_.carried ? *reinterpret_cast<float2 const*>(o) : float2{0.0f, 0.0f};
        if (args_.finishes) {
          *reinterpret_cast<std::uint32_t*>(out_row(work, row) + column) =
              pack<Element>(finished(pair.x, l, reciprocal), finished(pair.y, l, reciprocal));
        } else {
          *reinterpret_cast<float2*>(o) = pair;
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
  int warpgroup_;
  Ring<C::stages> work_;
  Ring<C::stages> k_;  ///< of the next scores; values are one block behind
  Ring<1> q_;
};

}  // namespace plait::cuda::hopper
