// The Hopper fold: one producer thread feeds K and V by TMA through two rings of stages; each consumer
// warpgroup owns 64 query rows and keeps their state in registers.
//
// The structure is FlashAttention-3's (Shah et al. 2024): the product Q·Kᵀ of one key block runs while the
// softmax of the one before is computed and P·V of it is added (overlap inside a warpgroup), and named
// barriers let one warpgroup multiply while another computes weights. Ours: bands through segments, the state
// carried in and out in registers, and rescaling only when a row's maximum has grown by more than 2^8.
#pragma once

#include <cuda.h>

#include "../fold_args.hpp"
#include "tile.cuh"

namespace plait::cuda::hopper {

/// What is fixed when a kernel is compiled.
template <class ElementType, int HeadDim, int ValueDim, int Warpgroups, int KeyBlock, bool PingPong>
struct FoldConfig {
  using Element = ElementType;
  static constexpr int head_dim = HeadDim;
  static constexpr int value_dim = ValueDim;
  static constexpr int warpgroups = Warpgroups;  ///< consumers
  static constexpr int tile_rows = 64 * Warpgroups;
  static constexpr int key_block = KeyBlock;
  static constexpr bool ping_pong = PingPong;
  static constexpr int stages = 2;
  static constexpr int threads = warpgroup_threads * (Warpgroups + 1);
  static constexpr int producer_registers = Warpgroups == 3 ? 32 : 24;
  static constexpr int consumer_registers = Warpgroups == 3 ? 160 : 240;
  static_assert(HeadDim % chunk_dims == 0 && ValueDim % chunk_dims == 0 && KeyBlock % 16 == 0);
};

/// One tile of one head, as the producer hands it to the consumers; a tile that begins at −1 is the end.
struct Work {
  Tile tile;
  std::int32_t head;
  std::int32_t batch;
};

template <class C>
struct alignas(1024) Shared {
  typename C::Element q[C::head_dim / chunk_dims][C::tile_rows][chunk_dims];
  typename C::Element k[C::stages][C::head_dim / chunk_dims][C::key_block][chunk_dims];
  typename C::Element v[C::stages][C::value_dim / chunk_dims][C::key_block][chunk_dims];
  Barrier q_full, q_empty;
  Barrier k_full[C::stages], k_empty[C::stages];
  Barrier v_full[C::stages], v_empty[C::stages];
  Barrier work_full[C::stages], work_empty[C::stages];
  Work work[C::stages];
  Work current[4 * C::warpgroups];  ///< each consumer warp's own tile
};

/// The block's shared memory; at a fixed address, which costs no registers.
template <class C>
__device__ __forceinline__ Shared<C>& shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return *reinterpret_cast<Shared<C>*>(memory);
}

struct Maps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
};

// ---------------------------------------------------------------------------------------------- producer

/// The `item`-th piece of work. Heads go in groups whose keys and values fit in L2 together; in a group the
/// longest tiles of all heads come first.
__device__ __forceinline__ Work work_of(FoldArgs const& args, int item) {
  int const lanes = args.batch * args.q_heads;
  int const per_group = args.tile_count * args.heads_at_once;
  int const first = item / per_group * args.heads_at_once;
  int const width = min(args.heads_at_once, lanes - first);
  int const lane = first + item % per_group % width;
  return {args.tiles[item % per_group / width], lane % args.q_heads, lane / args.q_heads};
}

/// The index of a row of a work's head among the rows of the state.
__device__ __forceinline__ std::int64_t state_row(FoldArgs const& args, Work const& work, int row) {
  return (static_cast<std::int64_t>(work.batch) * args.q_heads + work.head) * args.rows + row;
}

template <class C>
class Producer {
 public:
  __device__ __forceinline__ Producer(FoldArgs const& args, Maps const& maps) : args_(args), maps_(maps) {}

  __device__ __forceinline__ void run() {
    int const items = args_.tile_count * args_.batch * args_.q_heads;
    int item = static_cast<int>(blockIdx.x);
    while (item < items) {
      Work const work = work_of(args_, item);
      hand_over(work);
      if (work.tile.segment_begin != work.tile.segment_end) load(work);
      item = static_cast<int>(gridDim.x) + atomicAdd(args_.next_item, 1);
    }
    hand_over({.tile = {-1, -1, 0, 0}, .head = 0, .batch = 0});
    // The last block to run out of work leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(args_.finished_ctas, 1) == static_cast<int>(gridDim.x) - 1) {
      *args_.next_item = 0;
      *args_.finished_ctas = 0;
    }
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  __device__ __forceinline__ void hand_over(Work const& work) {
    barrier_wait(shared().work_empty[work_.stage()], work_.parity() ^ 1);
    shared().work[work_.stage()] = work;
    barrier_arrive(shared().work_full[work_.stage()]);
    work_.advance();
  }

  /// All blocks of a tile, K one block ahead of V.
  __device__ __forceinline__ void load(Work const& work) {
    int const kv_head = work.head / args_.group;
    barrier_wait(shared().q_empty, q_.parity() ^ 1);
    q_.advance();
    barrier_expect(shared().q_full, sizeof shared().q);
#pragma unroll
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.q, shared().q[chunk], chunk * chunk_dims, work.tile.row_begin, work.head, work.batch,
               shared().q_full);
    }
    if (args_.carried) prefetch_state(work);
    int previous_key = -1;
    for (int at = work.tile.segment_begin; at < work.tile.segment_end; ++at) {
      int key = args_.segments[at].begin;
      for (int blocks = args_.segments[at].blocks; blocks > 0; --blocks) {
        load_k(key, kv_head, work.batch);
        if (previous_key >= 0) load_v(previous_key, kv_head, work.batch);
        previous_key = key;
        key += C::key_block;
      }
    }
    load_v(previous_key, kv_head, work.batch);
  }

  /// Brings the tile's O into the L2 cache, so that the consumers do not wait for the device's memory.
  __device__ __forceinline__ void prefetch_state(Work const& work) const {
    float const* const o = args_.o + state_row(args_, work, work.tile.row_begin) * args_.value_dim;
    int const bytes =
        (work.tile.row_end - work.tile.row_begin) * args_.value_dim * static_cast<int>(sizeof(float));
    if (reinterpret_cast<std::uintptr_t>(o) % 16 != 0) return;  // the instruction's unit
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(o), "r"(bytes) : "memory");
  }

  __device__ __forceinline__ void load_k(int key, int head, int batch) {
    int const stage = k_.stage();
    barrier_wait(shared().k_empty[stage], k_.parity() ^ 1);
    barrier_expect(shared().k_full[stage], sizeof shared().k[0]);
#pragma unroll
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.k, shared().k[stage][chunk], chunk * chunk_dims, key, head, batch,
               shared().k_full[stage]);
    }
    k_.advance();
  }
  __device__ __forceinline__ void load_v(int key, int head, int batch) {
    int const stage = v_.stage();
    barrier_wait(shared().v_empty[stage], v_.parity() ^ 1);
    barrier_expect(shared().v_full[stage], sizeof shared().v[0]);
#pragma unroll
    for (int chunk = 0; chunk < C::value_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.v, shared().v[stage][chunk], chunk * chunk_dims, key, head, batch,
               shared().v_full[stage]);
    }
    v_.advance();
  }

  FoldArgs const& args_;
  Maps const& maps_;
  Ring<C::stages> work_, k_, v_;
  Ring<1> q_;
};

// ---------------------------------------------------------------------------------------------- consumers

constexpr float minus_infinity = -__builtin_huge_valf();
/// A row's reference exponent follows its maximum only when that has grown by more than this: weights stay
/// below 2^8, and most blocks leave O as it is.
constexpr float lazy_exponents = 8.0f;

/// The keys of one block that one row sees: [first, first + count), counted from this thread's first column.
struct Window {
  int first;
  unsigned count;
};

/// This thread's share of 64 query rows: two rows, and of each the columns of its quad position.
template <class C>
struct Rows {
  static constexpr int score_count = C::key_block / 2;
  static constexpr int value_count = C::value_dim / 2;

  float o[value_count];
  std::uint32_t p[C::key_block / 4];
  float m[2];
  float l[2];  ///< of this thread's columns
};

/// A tile's first m and l, and what its O is to be multiplied by.
struct Sums {
  float m[2];
  float l[2];
  float rescale[2];
};

__device__ __forceinline__ Window window_of(Segment const& segment, int row, int first_key) {
  int const begin = max(segment.begin, row + segment.lo);
  int const end = min(segment.end, row + segment.hi + 1);
  bool const sees = segment.row_begin <= row && row < segment.row_end && begin < end;
  return {begin - first_key, sees ? static_cast<unsigned>(end - begin) : 0u};
}

template <int Count>
__device__ __forceinline__ void mask_scores(float (&s)[Count], Window const (&windows)[2]) {
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    int const row = e / 2 % 2;
    int const column = e / 4 * 8 + e % 2;
    if (static_cast<unsigned>(column - windows[row].first) >= windows[row].count) s[e] = minus_infinity;
  }
}

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/// Scores become weights 2^(scale·s − m); m follows the maxima lazily. @returns whether O is to be multiplied
/// by `rescale`, which is the same for the whole warp
template <bool Masked, int Count>
__device__ __forceinline__ bool weigh(float (&s)[Count], float (&m)[2], float (&l)[2], float (&rescale)[2],
                                      float scale) {
  float high[2] = {s[0], s[2]};
#pragma unroll
  for (int e = 0; e < Count; ++e) high[e / 2 % 2] = fmaxf(high[e / 2 % 2], s[e]);
  bool grows = false;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    high[i] = fmaxf(m[i], quad_max(high[i]) * scale);
    grows = grows || high[i] > m[i] + lazy_exponents;
  }
  bool const rescales = __any_sync(0xffffffffu, grows);
  if (rescales) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // A row that has seen nothing yet stays at −inf; −inf − (−inf) is not formed.
      bool const empty = Masked && high[i] == minus_infinity;
      rescale[i] = empty ? 1.0f : fast_exp2(m[i] - high[i]);
      m[i] = high[i];
      l[i] *= rescale[i];
    }
  }
  float base[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) base[i] = Masked && m[i] == minus_infinity ? 0.0f : m[i];
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    s[e] = fast_exp2(fmaf(s[e], scale, -base[e / 2 % 2]));
    sum[e / 2 % 2] += s[e];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) l[i] += sum[i];
  return rescales;
}

template <class C>
__device__ __forceinline__ void round_weights(float const (&s)[Rows<C>::score_count], Rows<C>& rows) {
#pragma unroll
  for (int e = 0; e < C::key_block / 4; ++e) rows.p[e] = pack<typename C::Element>(s[2 * e], s[2 * e + 1]);
}

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
      release(shared().q_empty);
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
  /// This thread among its warpgroup's. Read anew at each use: what is computed from it must not take
  /// registers through the main loop.
  static __device__ __forceinline__ int thread() {
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index % warpgroup_threads;
  }
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
    if (lane() == 0) current() = found();
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
    Segment const* segment = args_.segments + current().tile.segment_begin;
    for (int left = segment->blocks - 1;;) {
      if (segment->masked != 0) {
        for (; left > 0; --left) step<true>(segment, left, rows);
      } else {
        for (; left > 0; --left) step<false>(segment, left, rows);
      }
      if (++segment == args_.segments + current().tile.segment_end) return;
      left = segment->blocks;
    }
  }

  /// Scores and weights of the next block, while the values of the last one are added.
  template <bool Masked>
  __device__ __forceinline__ void step(Segment const* segment, int left, Rows<C>& rows) {
    float s[Rows<C>::score_count];
    float rescale[2];
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    multiply_both(s, rows);
    if constexpr (Masked) mask(s, *segment, segment->blocks - left, current().tile.row_begin);
    bool const rescales = weigh<Masked>(s, rows.m, rows.l, rescale, args_.scale_log2);
    take_values(rows, rows.l[0] + rows.l[1]);
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
    take_values(rows, next.l[0] + next.l[1]);
    round_weights<C>(s, rows);
    pin(rows.p);  // before the rows that are stored need registers of their own
  }

  /// The tile that was found begins: its weights are there.
  __device__ __forceinline__ void begin(Rows<C>& rows, Sums const& sums) {
    __syncwarp();
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
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
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
  /// Returns when the last values have been added. `weights` is a number that depends on all of this thread's
  /// weights, and is not negative.
  __device__ __forceinline__ void take_values(Rows<C>& rows, float weights) {
#ifndef PROBE_HOIST
    // Stores nothing, ever. The weights are to be computed while the values are being added: without this use
    // of all of them, ptxas moves the wait up, before the exponentials.
    asm volatile(
        "{ .reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p st.volatile.shared.f32 [%1], %0; }" ::"f"(weights),
        "r"(shared_address(&current()))
        : "memory");
#endif
    wgmma_wait<0>();
    pin(rows.o);
    release(shared().v_empty[k_.back(2).stage()]);
  }
  __device__ __forceinline__ void weigh_first(float (&s)[Rows<C>::score_count], Sums& sums) const {
    load_sums(sums);
    Segment const& segment = args_.segments[found().tile.segment_begin];
    if (segment.masked != 0) mask(s, segment, 0, found().tile.row_begin);
    sums.rescale[0] = sums.rescale[1] = 1.0f;
    weigh<true>(s, sums.m, sums.l, sums.rescale, args_.scale_log2);
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
                                       int first_row) const {
    int const first = segment.begin + block * C::key_block + quad_lane() * 2;
    int const row = row_of(first_row);
    Window const windows[2] = {window_of(segment, row, first), window_of(segment, row + 8, first)};
    mask_scores(s, windows);
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

  /// lse = ln 2 · (m + log2 l), rounded once though m and log2 l may cancel.
  static __device__ __forceinline__ float log_sum_exp(float m, float l) {
    int const exponent =
        ((__float_as_int(l) >> 23) & 0xff) - 127;  // l is at least the weight of a maximum: normal
    float const mantissa = __int_as_float((__float_as_int(l) & 0x7fffff) | 0x3f800000);
    double const sum = static_cast<double>(m) + exponent + static_cast<double>(log2f(mantissa));
    return static_cast<float>(sum * 0.693147180559945309417);
  }

  __device__ __forceinline__ void write_lse(Work const& work, int row, float m, float l) const {
    if (args_.lse == nullptr) return;
    args_.lse[work.batch * args_.lse_batch_stride + work.head * args_.lse_head_stride + row] =
        l == 0.0f ? minus_infinity : log_sum_exp(m, l);
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
      float const inverse = l == 0.0f ? 0.0f : 1.0f / l;
      if (inside && quad_lane() == 0) write_lse(current(), row, rows.m[i], l);
      Element* const out = out_row(current(), row);
#pragma unroll
      for (int group = 0; group < C::value_dim / 32; ++group) {
        std::uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float const* const o = rows.o + 4 * (4 * group + j) + 2 * i;
          pairs[j] = pack<Element>(o[0] * inverse, o[1] * inverse);
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
      float const inverse = l == 0.0f ? 0.0f : 1.0f / l;
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
              pack<Element>(pair.x * inverse, pair.y * inverse);
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

// ---------------------------------------------------------------------------------------------- the kernel

template <class C>
__device__ __forceinline__ void init_barriers(Shared<C>& shared) {
  constexpr int warps = 4 * C::warpgroups;
  barrier_init(shared.q_full, 1);
  barrier_init(shared.q_empty, warps);
  for (int stage = 0; stage < C::stages; ++stage) {
    barrier_init(shared.k_full[stage], 1);
    barrier_init(shared.k_empty[stage], warps);
    barrier_init(shared.v_full[stage], 1);
    barrier_init(shared.v_empty[stage], warps);
    barrier_init(shared.work_full[stage], 1);
    barrier_init(shared.work_empty[stage], warps);
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

template <class C>
__global__ void __launch_bounds__(C::threads, 1)
    fold_kernel(__grid_constant__ FoldArgs const args, __grid_constant__ Maps const maps) {
  if (threadIdx.x == 0) init_barriers(shared_memory<C>());
  __syncthreads();
  if (threadIdx.x < warpgroup_threads) {
    give_registers<C::producer_registers>();
    if (threadIdx.x == 0) Producer<C>(args, maps).run();
  } else {
    take_registers<C::consumer_registers>();
    Consumer<C>(args).run();
  }
}

}  // namespace plait::cuda::hopper
