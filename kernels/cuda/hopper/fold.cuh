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
template <class C, bool Masked>
__device__ __forceinline__ bool weigh(float (&s)[Rows<C>::score_count], Rows<C>& rows, float (&rescale)[2],
                                      float scale) {
  constexpr int count = Rows<C>::score_count;
  float high[2] = {s[0], s[2]};
#pragma unroll
  for (int e = 0; e < count; ++e) high[e / 2 % 2] = fmaxf(high[e / 2 % 2], s[e]);
  bool grows = false;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    high[i] = fmaxf(rows.m[i], quad_max(high[i]) * scale);
    grows = grows || high[i] > rows.m[i] + lazy_exponents;
  }
  bool const rescales = __any_sync(0xffffffffu, grows);
  if (rescales) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // A row that has seen nothing yet stays at −inf; −inf − (−inf) is not formed.
      bool const empty = Masked && high[i] == minus_infinity;
      rescale[i] = empty ? 1.0f : fast_exp2(rows.m[i] - high[i]);
      rows.m[i] = high[i];
      rows.l[i] *= rescale[i];
    }
  }
  float base[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) base[i] = Masked && rows.m[i] == minus_infinity ? 0.0f : rows.m[i];
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int e = 0; e < count; ++e) {
    s[e] = fast_exp2(fmaf(s[e], scale, -base[e / 2 % 2]));
    sum[e / 2 % 2] += s[e];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) rows.l[i] += sum[i];
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
    for (;;) {
      barrier_wait(shared().work_full[work_.stage()], work_.parity());
      Work const& work = shared().work[work_.stage()];
      if (work.tile.row_begin < 0) break;
      fold(work);
      release(shared().work_empty[work_.stage()]);
      work_.advance();
    }
  }

 private:
  using Element = typename C::Element;
  static constexpr int turn_threads = warpgroup_threads * C::warpgroups;

  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ __forceinline__ int quad_lane() { return static_cast<int>(threadIdx.x) % 4; }

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

  __device__ __forceinline__ void fold(Work const& work) {
    bool const visits = work.tile.segment_begin != work.tile.segment_end;
    if (!visits && args_.carried && !args_.finishes) return;
    Rows<C> rows;
    load_state(work, rows);
    if (visits) visit(work, rows);
    if (args_.finishes) {
      finish(work, rows);
    } else {
      store_state(work, rows);
    }
  }

  /// Folds all blocks of the tile.
  __device__ __forceinline__ void visit(Work const& work, Rows<C>& rows) {
    int at = work.tile.segment_begin;
    int const end = work.tile.segment_end;
    int block = 0;
    barrier_wait(shared().q_full, q_.parity());
    q_.advance();
    first_step(args_.segments[at], work.tile.row_begin, rows);
    for (++block;; block = 0) {
      int const blocks = args_.segments[at].blocks;
      if (args_.segments[at].masked != 0) {
        for (; block < blocks; ++block) step<true>(args_.segments[at], block, work.tile.row_begin, rows);
      } else {
        for (; block < blocks; ++block) step<false>(args_.segments[at], block, 0, rows);
      }
      if (++at == end) break;
    }
    release(shared().q_empty);
    barrier_wait(shared().v_full[v_.stage()], v_.parity());
    add_values(rows);
    wgmma_wait<0>();
    pin(rows.o);
    release(shared().v_empty[v_.stage()]);
    v_.advance();
  }

  /// Scores and weights of the first block.
  __device__ __forceinline__ void first_step(Segment const& segment, int first_row, Rows<C>& rows) {
    float s[Rows<C>::score_count];
    float rescale[2];
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    wgmma_fence();
    multiply_scores(s);
    wgmma_wait<0>();
    pin(s);
    release(shared().k_empty[k_.stage()]);
    k_.advance();
    bool rescales;
    if (segment.masked != 0) {
      mask(s, segment, 0, first_row);
      rescales = weigh<C, true>(s, rows, rescale, args_.scale_log2);
    } else {
      rescales = weigh<C, false>(s, rows, rescale, args_.scale_log2);
    }
    round_weights<C>(s, rows);
    if (rescales) scale_values(rows, rescale);
  }

  /// Scores and weights of the next block, while the values of the last one are added.
  template <bool Masked>
  __device__ __forceinline__ void step(Segment const& segment, int block, int first_row, Rows<C>& rows) {
    float s[Rows<C>::score_count];
    float rescale[2];
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    await_turn();
    pin(rows.p);
    pin(rows.o);
    wgmma_fence();
    multiply_scores(s);
    barrier_wait(shared().v_full[v_.stage()], v_.parity());
    add_values(rows);
    pass_turn();
    wgmma_wait<1>();
    pin(s);
    release(shared().k_empty[k_.stage()]);
    k_.advance();
    if constexpr (Masked) mask(s, segment, block, first_row);
    bool const rescales = weigh<C, Masked>(s, rows, rescale, args_.scale_log2);
    // Never so. The weights are to be computed while the values are being added: without this use of all of
    // them, ptxas moves the wait up, before the exponentials.
    asm volatile("{ .reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p st.volatile.shared.f32 [%1], %0; }" ::"f"(
                     rows.l[0] + rows.l[1]),
                 "r"(shared_address(&shared().work[0].tile))
                 : "memory");
    wgmma_wait<0>();
    pin(rows.o);
    release(shared().v_empty[v_.stage()]);
    v_.advance();
    round_weights<C>(s, rows);
    if (rescales) scale_values(rows, rescale);
  }

  __device__ __forceinline__ void multiply_scores(float (&s)[Rows<C>::score_count]) const {
    std::uint64_t const q = descriptor(shared().q, 0) + descriptor_step(64 * 128) * warpgroup_;
    std::uint64_t const k = descriptor(shared().k, 0) + descriptor_step(sizeof shared().k[0]) * k_.stage();
    multiply_transposed<Element, C::key_block, C::head_dim, C::tile_rows>(s, q, k);
    wgmma_commit();
  }
  __device__ __forceinline__ void add_values(Rows<C>& rows) const {
    std::uint64_t const v =
        descriptor(shared().v, sizeof shared().v[0][0]) + descriptor_step(sizeof shared().v[0]) * v_.stage();
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
    return first_row + warpgroup_ * 64 + static_cast<int>(threadIdx.x) % warpgroup_threads / 32 * 16 +
           lane() / 4;
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t state_row(Work const& work, int row) const {
    return (static_cast<std::int64_t>(work.batch) * args_.q_heads + work.head) * args_.rows + row;
  }
  /// This thread's columns are column_of(j) and the one after it.
  [[nodiscard]] __device__ __forceinline__ int column_of(int j) const {
    return j * 8 + quad_lane() * 2;
  }

  __device__ __forceinline__ void load_state(Work const& work, Rows<C>& rows) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const r = row_of(work.tile.row_begin) + 8 * i;
      bool const reads = args_.carried && r < work.tile.row_end;
      std::int64_t const at = state_row(work, r);
      rows.m[i] = reads ? args_.m[at] : minus_infinity;
      rows.l[i] = reads && quad_lane() == 0 ? args_.l[at] : 0.0f;  // one lane of the quad carries the sum
      float const* const o = args_.o + at * args_.value_dim;
#pragma unroll
      for (int j = 0; j < C::value_dim / 8; ++j) {
        float2 pair{0.0f, 0.0f};
        if (reads && column_of(j) < args_.value_dim)
          pair = *reinterpret_cast<float2 const*>(o + column_of(j));
        rows.o[4 * j + 2 * i] = pair.x;
        rows.o[4 * j + 2 * i + 1] = pair.y;
      }
    }
  }

  __device__ __forceinline__ void store_state(Work const& work, Rows<C>& rows) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const r = row_of(work.tile.row_begin) + 8 * i;
      float const l = quad_sum(rows.l[i]);
      if (r >= work.tile.row_end) continue;
      std::int64_t const at = state_row(work, r);
      if (quad_lane() == 0) {
        args_.m[at] = rows.m[i];
        args_.l[at] = l;
      }
      float* const o = args_.o + at * args_.value_dim;
#pragma unroll
      for (int j = 0; j < C::value_dim / 8; ++j) {
        if (column_of(j) >= args_.value_dim) break;
        *reinterpret_cast<float2*>(o + column_of(j)) = {rows.o[4 * j + 2 * i], rows.o[4 * j + 2 * i + 1]};
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

  __device__ __forceinline__ void finish(Work const& work, Rows<C>& rows) const {
    constexpr int quads = C::value_dim / 32;
    int const lane = quad_lane();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const r = row_of(work.tile.row_begin) + 8 * i;
      float const l = quad_sum(rows.l[i]);
      bool const inside = r < work.tile.row_end;
      float const inverse = l == 0.0f ? 0.0f : 1.0f / l;
      if (inside && lane == 0 && args_.lse != nullptr) {
        args_.lse[work.batch * args_.lse_batch_stride + work.head * args_.lse_head_stride + r] =
            l == 0.0f ? minus_infinity : log_sum_exp(rows.m[i], l);
      }
      Element* const out = static_cast<Element*>(args_.out) + work.batch * args_.out_batch_stride +
                           r * args_.out_row_stride + work.head * args_.out_head_stride;
#pragma unroll
      for (int quad = 0; quad < quads; ++quad) {
        std::uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float const* const o = rows.o + 4 * (4 * quad + j) + 2 * i;
          pairs[j] = pack<Element>(o[0] * inverse, o[1] * inverse);
        }
        transpose_quad(pairs, lane);
        int const column = quad * 32 + lane * 8;
        if (inside && column < args_.value_dim) {
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
  int warpgroup_;
  Ring<C::stages> work_, k_, v_;
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
