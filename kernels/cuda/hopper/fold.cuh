// The Hopper fold: one producer thread feeds K and V by TMA through two rings of stages; each consumer
// warpgroup owns 64 query rows and keeps their state in registers.
//
// The structure is FlashAttention-3's (Shah et al. 2024): the product Q·Kᵀ of one key block runs while the
// softmax of the one before is computed and P·V of it is added (overlap inside a warpgroup), and named
// barriers let one warpgroup multiply while another computes weights. Ours: bands through segments, the state
// carried in and out in registers, and rescaling only when a row's maximum has grown by more than 2^8.
#pragma once

#include <cuda.h>

#include "../finish.cuh"
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
  static constexpr int producer_registers = Warpgroups == 3 ? 32 : 40;
  static constexpr int consumer_registers = Warpgroups == 3 ? 160 : 232;
  static_assert(HeadDim % chunk_dims == 0 && ValueDim % chunk_dims == 0 && KeyBlock % 16 == 0);
};

/// One tile of one head, as the producer hands it to the consumers; a tile that begins at −1 is the end.
struct Work {
  Tile tile;
  std::int32_t head;
  std::int32_t kv_head;
  std::int32_t batch;
  Segment first;  ///< the tile's first segment, if it has one
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
__device__ __forceinline__ void find(FoldArgs const& args, int item, Work& work) {
  int const lanes = args.batch * args.q_heads;
  int const per_group = args.tile_count * args.heads_at_once;
  int const first = item / per_group * args.heads_at_once;
  int const width = min(args.heads_at_once, lanes - first);
  int const lane = first + item % per_group % width;
  work.tile = args.tiles[item % per_group / width];
  work.head = lane % args.q_heads;
  work.kv_head = work.head / args.group;
  work.batch = lane / args.q_heads;
  if (work.tile.segment_begin != work.tile.segment_end) work.first = args.segments[work.tile.segment_begin];
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
    int item = static_cast<int>(blockIdx.x);
    for (bool first = true;; first = false) {
      // A tile is handed over when the one before it has begun, so that finding it costs no time, and its
      // state has come nearer when it is needed.
      bool const more = hand_over(item);
      if (!first) load_rest(shared().work[work_.back(2).stage()]);
      if (!more) break;
      item = static_cast<int>(gridDim.x) + atomicAdd(args_.next_item, 1);
      load_first(shared().work[work_.back(1).stage()]);
    }
    // The last block to run out of work leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(args_.finished_ctas, 1) == static_cast<int>(gridDim.x) - 1) {
      *args_.next_item = 0;
      *args_.finished_ctas = 0;
    }
  }

 private:
  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }

  /// Gives the consumers an item, or the end. @returns whether there was one
  __device__ __forceinline__ bool hand_over(int item) {
    bool const exists = item < args_.tile_count * args_.batch * args_.q_heads;
    barrier_wait(shared().work_empty[work_.stage()], work_.parity() ^ 1);
    Work& work = shared().work[work_.stage()];
    if (exists) {
      find(args_, item, work);
      if (args_.carried) prefetch_state(work);
    } else {
      work.tile.row_begin = -1;
    }
    barrier_arrive(shared().work_full[work_.stage()]);
    work_.advance();
    return exists;
  }

  /// The first key block and the query tile.
  __device__ __forceinline__ void load_first(Work const& work) {
    if (work.tile.segment_begin == work.tile.segment_end) return;
    load_k(work, work.first.begin);
    load_q(work);
  }

  /// The other blocks of the tile, K one block ahead of V.
  __device__ __forceinline__ void load_rest(Work const& work) {
    if (work.tile.segment_begin == work.tile.segment_end) return;
    int previous_key = work.first.begin;
    int key = previous_key + C::key_block;
    int left = work.first.blocks - 1;
    for (int at = work.tile.segment_begin;;) {
      for (; left > 0; --left) {
        load_k(work, key);
        load_v(work, previous_key);
        previous_key = key;
        key += C::key_block;
      }
      if (++at == work.tile.segment_end) break;
      key = args_.segments[at].begin;
      left = args_.segments[at].blocks;
    }
    load_v(work, previous_key);
  }

  /// Brings the tile's state into the L2 cache, so that the consumers do not wait for the device's memory.
  __device__ __forceinline__ void prefetch_state(Work const& work) const {
    std::int64_t const at = state_row(args_, work, work.tile.row_begin);
    int const rows = work.tile.row_end - work.tile.row_begin;
    prefetch(args_.o + at * args_.value_dim, rows * args_.value_dim);
    prefetch(args_.m + at, rows);
    prefetch(args_.l + at, rows);
  }
  static __device__ __forceinline__ void prefetch(float const* data, int count) {
    if (reinterpret_cast<std::uintptr_t>(data) % 16 != 0 || count % 4 != 0) return;  // the instruction's unit
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(data), "r"(count * 4) : "memory");
  }

  __device__ __forceinline__ void load_q(Work const& work) {
    barrier_wait(shared().q_empty, q_.parity() ^ 1);
    q_.advance();
    barrier_expect(shared().q_full, sizeof shared().q);
#pragma unroll 1
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.q, shared().q[chunk], chunk * chunk_dims, work.tile.row_begin, work.head, work.batch,
               shared().q_full);
    }
  }
  __device__ __forceinline__ void load_k(Work const& work, int key) {
    int const stage = k_.stage();
    barrier_wait(shared().k_empty[stage], k_.parity() ^ 1);
    barrier_expect(shared().k_full[stage], sizeof shared().k[0]);
#pragma unroll 1
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.k, shared().k[stage][chunk], chunk * chunk_dims, key, work.kv_head, work.batch,
               shared().k_full[stage]);
    }
    k_.advance();
  }
  __device__ __forceinline__ void load_v(Work const& work, int key) {
    int const stage = v_.stage();
    barrier_wait(shared().v_empty[stage], v_.parity() ^ 1);
    barrier_expect(shared().v_full[stage], sizeof shared().v[0]);
#pragma unroll 1
    for (int chunk = 0; chunk < C::value_dim / chunk_dims; ++chunk) {
      tma_load(&maps_.v, shared().v[stage][chunk], chunk * chunk_dims, key, work.kv_head, work.batch,
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

/// A row's keys [begin, end) of a block, counted from this thread's first column, as one bit for each of the
/// thread's columns 8·j and 8·j + 1, j < 16.
__device__ __forceinline__ std::uint32_t seen_columns(int begin, int end) {
  auto const bits_below = [](int column) {
    int const count = column / 8 * 2 + min(column % 8, 2);
    return static_cast<std::uint32_t>((1ull << count) - 1);
  };
  return bits_below(min(max(end, 0), 128)) & ~bits_below(min(max(begin, 0), 128));
}

/// Scores of unseen keys become −inf. `row` is this thread's first row, `first` its first column's key.
template <int Count>
__device__ __forceinline__ void mask_scores(float (&s)[Count], Segment const& segment, int row, int first) {
  constexpr int words = (Count / 4 + 15) / 16;
  std::uint32_t seen[2][words];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int const r = row + 8 * i;
    bool const inside = segment.row_begin <= r && r < segment.row_end;
    int const begin = max(segment.begin, r + segment.lo) - first;
    int const end = inside ? min(segment.end, r + segment.hi + 1) - first : begin;
#pragma unroll
    for (int word = 0; word < words; ++word) {
      seen[i][word] = seen_columns(begin - 128 * word, end - 128 * word);
    }
  }
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    int const column = e / 4;
    bool const sees = (seen[e / 2 % 2][column / 16] >> (column % 16 * 2 + e % 2) & 1u) != 0;
    s[e] = sees ? s[e] : minus_infinity;
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
