// A consumer warpgroup of the Hopper fold: 64 query rows whose state stays in registers.
#pragma once

#include "row_access.cuh"

namespace plait::cuda::hopper {

template <class C>
class Consumer {
 public:
  __device__ __forceinline__ Consumer(FoldArgs const& args, bool moves_rows)
      : args_(args),
        // The same for the whole warp, which the compiler cannot see.
        warpgroup_(__shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / warpgroup_threads - 1, 0)),
        rows_(args, moves_rows, warpgroup_) {}

  __device__ __forceinline__ void run() {
    // Turns go round in order from the first warpgroup on: those after it have, as it were, just had theirs.
    if constexpr (C::ping_pong) {
      if (warpgroup_ > 0) named_arrive(turn_barrier(0), turn_threads);
      if (warpgroup_ > 1) named_arrive(turn_barrier(1), turn_threads);
    }
    if (find_work()) walk();
    rows_.close();
  }

 private:
  using Element = typename C::Element;
  static constexpr int turn_threads = warpgroup_threads * C::warpgroups;
  static constexpr int half_block = C::halves_blocks ? C::key_block / 2 : C::key_block;
  static constexpr int weight_words = C::key_block / 4;

  /// From the tile that was found to the last.
  __device__ __forceinline__ void walk() {
    Rows<C> rows;
    first_step(rows);
    for (;;) {
      other_steps(rows);
      Sums carried;
      if constexpr (!C::stages_rows)
        carried = rows_.carried_sums(current());  // while the last values are added
      Sums next;
      if (!uniform(find_work())) {
        last_step(rows);
        rows_.leave(current(), rows, carried);
        return;
      }
      turn_step(rows, next);
      rows_.leave(current(), rows, carried);
      begin(rows, next);
    }
  }

  static __device__ __forceinline__ Shared<C>& shared() { return shared_memory<C>(); }
  static __device__ __forceinline__ int turn_barrier(int warpgroup) {
    return NamedBarrier<C>::turn + warpgroup;
  }
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
      if (args_.finishes || !args_.carried) rows_.settle(work);
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
    if (Place::lane() < words) {
      reinterpret_cast<std::int32_t*>(&current())[Place::lane()] =
          reinterpret_cast<std::int32_t const*>(&found())[Place::lane()];
    }
    release(shared().work_empty[work_.stage()]);
    work_.advance();
    __syncwarp();
  }
  static __device__ __forceinline__ int warp() {
    return static_cast<int>(threadIdx.x / 32 - warpgroup_threads / 32);
  }
  static __device__ __forceinline__ Work& current() { return shared().current[warp()]; }

  /// Scores and weights of the first tile's first block.
  __device__ __forceinline__ void first_step(Rows<C>& rows) {
    float s[Rows<C>::score_count];
    Sums sums;
    await_operands();
    wgmma_fence();
    multiply_scores(s);
    weigh_first<0>(s, sums);
    round_weights<C>(s, rows);
    pin(rows.p);
    begin(rows, sums);
  }

  /// From the second block of the tile on: what is to be done with a block is looked up once per segment.
  __device__ __forceinline__ void other_steps(Rows<C>& rows) {
    bool const idle =
        C::warpgroups > 2 && uniform(current().tile.row_begin + 64 * warpgroup_ >= current().tile.row_end);
    for (;;) {
      if (idle) {
        for (; left_ > 0; --left_) pass_by();
      } else if (masked_) {
        for (; left_ > 0; --left_) {
          barrier_wait(shared().k_full[k_.stage()], k_.parity());
          int const seen = keys_seen();
          if (uniform(seen == 0)) {
            leave_out(rows);
          } else if (C::halves_blocks && uniform(seen <= half_block)) {
            step<true, half_block>(rows);
          } else {
            step<true, C::key_block>(rows);
          }
        }
      } else {
        if (left_ > 0) weigh_rest(rows);
        for (; left_ > 0; --left_) step<false, C::key_block>(rows);
      }
      if (last_) return;
      barrier_wait(shared().k_full[k_.stage()], k_.parity());
      enter_segment();
    }
  }
  /// Up to which key of the block, of a masked segment, whose scores come next, this warpgroup's rows see
  /// keys, counted from the block's first one; 0 if they see none.
  [[nodiscard]] __device__ __forceinline__ int keys_seen() const {
    Segment const& segment = block().segment;
    int const first_row = current().tile.row_begin + 64 * warpgroup_;
    int const row_begin = max(first_row, segment.row_begin);
    int const row_end = min(first_row + 64, segment.row_end);
    int const key_begin = max(block().key, segment.begin);
    int const key_end = min(block().key + C::key_block, segment.end);
    bool const nothing = row_begin >= row_end || key_begin >= key_end || key_end - row_begin <= segment.lo ||
                         key_begin - row_end >= segment.hi;
    return nothing ? 0 : min(key_end - block().key, row_end - block().key + segment.hi);
  }
  /// A step without scores: the next block has no weights.
  __device__ __forceinline__ void leave_out(Rows<C>& rows) {
    await_turn();
    pin(rows.p);
    pin(rows.o);
    add_values<true>(rows);
    pass_turn();
    release_keys();
    take_values(rows);
    if constexpr (C::halves_blocks) {
      weighed_ = 0;
    } else {
      clear<0, weight_words>(rows.p);
    }
  }
  /// The last block's keys without a weight get 0.
  __device__ __forceinline__ void weigh_rest(Rows<C>& rows) {
    if (!C::halves_blocks || uniform(weighed_ == C::key_block)) return;
    if (uniform(weighed_ == 0)) clear<0, weight_words / 2>(rows.p);
    clear<weight_words / 2, weight_words>(rows.p);
    weighed_ = C::key_block;
  }
  /// A step of a warpgroup whose rows all lie beyond the tile's end: it takes its turn, and gives back what
  /// was loaded.
  __device__ __forceinline__ void pass_by() {
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    await_turn();
    pass_turn();
    auto const values = k_.back(1);
    barrier_wait(shared().v_full[values.stage()], values.parity());
    release_shared(shared().v_empty[values.stage()]);
    release_keys();
  }
  /// The block whose scores come next begins a segment.
  __device__ __forceinline__ void enter_segment() {
    left_ = block().left;
    masked_ = block().segment.masked != 0;
    last_ = block().last != 0;
  }
  /// Scores and weights of the next block, while the values of the last one are added.
  template <bool Masked, int Keys>
  __device__ __forceinline__ void step(Rows<C>& rows) {
    float s[Keys / 2];
    float rescale[2];
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
    multiply_both<Masked>(s, rows);
    Seen<C> seen;
    if constexpr (Masked) find_seen(seen, current());
    take_scores<1>(s);
    if constexpr (Masked) hide_unseen<C>(s, seen);
    bool const rescales = weigh<Masked>(s, rows.m, rows.l, rescale, scale());
    // Where no other warpgroup's turn keeps the tensor cores busy, the weights are to be computed while this
    // one's product runs: the compiler would wait for it first.
    if constexpr (!C::ping_pong) only_after(!(rows.l[0] < 0.0f || rows.l[1] < 0.0f));  // or not a number
    take_values(rows);
    round_weights<C>(s, rows);
    if constexpr (Masked) weighed_ = Keys;
    if (rescales) scale_values<C>(rows, rescale);
  }

  /// From one tile to the next: scores and weights of the next one's first block, while the values of this
  /// one's last block are added.
  __device__ __forceinline__ void turn_step(Rows<C>& rows, Sums& next) {
    float s[Rows<C>::score_count];
    await_operands();
    multiply_both<true>(s, rows);
    weigh_first<1>(s, next);
    take_values(rows);
    round_weights<C>(s, rows);
    weighed_ = C::key_block;
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
    rows_.enter(current());
#pragma unroll
    for (int e = 0; e < Rows<C>::value_count; ++e) rows.o[e] = 0.0f;
  }

  /// The values of the last tile's last block.
  __device__ __forceinline__ void last_step(Rows<C>& rows) {
    pin(rows.p);
    pin(rows.o);
    add_values<true>(rows);
    wgmma_wait<0>();
    pin(rows.o);
    release_shared(shared().v_empty[k_.back(1).stage()]);
  }

  /// Until the query tile and the first key block of the tile that was found are there.
  __device__ __forceinline__ void await_operands() {
    barrier_wait(shared().q_full[warpgroup_], q_.parity());
    q_.advance();
    if (args_.scale_log2 <= 0.0f) make_scale_positive();
    barrier_wait(shared().k_full[k_.stage()], k_.parity());
  }
  /// The weights want a positive scale. For a negative one this warp's queries change their sign, for 0 they
  /// become 0, and scale() is what then belongs to them.
  __device__ __forceinline__ void make_scale_positive() const {
    std::uint32_t const flip = args_.scale_log2 < 0.0f ? 0x80008000u : 0u;
    std::uint32_t const keep = args_.scale_log2 < 0.0f ? ~0u : 0u;
    int const row = Place::warp() * 16;
    for (int chunk = 0; chunk < C::head_dim / chunk_dims; ++chunk) {
      auto* const pairs = reinterpret_cast<std::uint32_t*>(&shared().q[warpgroup_][chunk][row]);
      for (int at = Place::lane(); at < 16 * chunk_dims / 2; at += 32) pairs[at] = (pairs[at] & keep) ^ flip;
    }
    ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
    named_sync(NamedBarrier<C>::own + warpgroup_, warpgroup_threads);
  }
  [[nodiscard]] __device__ __forceinline__ float scale() const {
    return args_.scale_log2 == 0.0f ? 1.0f : fabsf(args_.scale_log2);
  }
  /// How the key block is to be treated whose scores come next.
  [[nodiscard]] __device__ __forceinline__ KeyBlock const& block() const {
    return shared().blocks[k_.stage()];
  }
  /// Returns when the scores are there, with at most `Pending` products unfinished. The next keys take these
  /// ones' place: nothing may delay that.
  template <int Pending, int Count>
  __device__ __forceinline__ void take_scores(float (&s)[Count]) {
    wgmma_wait<Pending>();
    pin(s);
    release_keys();
  }
  /// Gives a stage back that a cluster's two blocks may fill together.
  __device__ __forceinline__ void release_shared(Barrier& empty) const {
    if constexpr (C::may_share_keys) return release(empty, shares_keys<C>(args_));
    release(empty);
  }
  __device__ __forceinline__ void release_keys() {
    release_shared(shared().k_empty[k_.stage()]);
    k_.advance();
    if (last_ && left_ == 1) release(shared().q_empty[warpgroup_]);
  }
  /// What the rows of this tile see of the block whose scores come next.
  __device__ __forceinline__ void find_seen(Seen<C>& seen, Work const& work) const {
    hopper::find_seen<C>(seen, block().segment, rows_.row_of(work.tile.row_begin),
                         block().key + Place::quad_lane() * 2);
  }
  /// Issues the next scores and the last values.
  template <bool MayLack, int Count>
  __device__ __forceinline__ void multiply_both(float (&s)[Count], Rows<C>& rows) {
    await_turn();
    pin(rows.p);
    pin(rows.o);
    wgmma_fence();
    multiply_scores(s);
    add_values<MayLack>(rows);
    pass_turn();
  }
  /// Returns when the last values have been added.
  __device__ __forceinline__ void take_values(Rows<C>& rows) {
    wgmma_wait<0>();
    pin(rows.o);
    release_shared(shared().v_empty[k_.back(2).stage()]);
  }
  /// Weights of the first block of the tile that was found, whose scores have been issued.
  template <int Pending>
  __device__ __forceinline__ void weigh_first(float (&s)[Rows<C>::score_count], Sums& sums) {
    float rescale[2];  // of an O that is not there yet
    enter_segment();
    Seen<C> seen;
    if (masked_) find_seen(seen, found());
    take_scores<Pending>(s);
    --left_;
    if (masked_) hide_unseen<C>(s, seen);
    weigh<true>(s, sums.m, sums.l, rescale, scale());
  }
  /// Issues the scores of the next block's first keys.
  template <int Count>
  __device__ __forceinline__ void multiply_scores(float (&s)[Count]) const {
    std::uint64_t q = descriptor(shared().q, 0) + descriptor_step(sizeof shared().q[0]) * warpgroup_;
    if constexpr (C::head_dim > 192) q = here(q);  // 16 of them are more than uniform registers hold
    std::uint64_t const k = descriptor(shared().k, 0) + descriptor_step(sizeof shared().k[0]) * k_.stage();
    multiply_transposed<Element, 2 * Count, C::head_dim, 64, C::key_block>(s, q, k);
    wgmma_commit();
  }
  /// Issues the product of the weights and the values of the block before the one whose scores come next.
  /// @tparam MayLack  whether the block may have fewer weights than keys
  template <bool MayLack>
  __device__ __forceinline__ void add_values(Rows<C>& rows) const {
    auto const at = k_.back(1);
    barrier_wait(shared().v_full[at.stage()], at.parity());
    std::uint64_t const v =
        descriptor(shared().v, sizeof shared().v[0][0]) + descriptor_step(sizeof shared().v[0]) * at.stage();
    wgmma_fence();
    if (!MayLack || !C::halves_blocks || uniform(weighed_ == C::key_block)) {
      multiply_add<Element, C::value_dim, C::key_block>(rows.o, rows.p, v);
    } else if (uniform(weighed_ == half_block)) {
      multiply_add<Element, C::value_dim, half_block>(rows.o, rows.p, v);
    }
    wgmma_commit();
  }
  FoldArgs const& args_;
  int warpgroup_;
  RowAccess<C> rows_;
  Ring<C::stages> work_;
  Ring<C::stages> k_;  ///< of the next scores; values are one block behind
  Ring<1> q_;
  int left_ = 0;                ///< blocks of the segment at hand, from the one whose scores come next on
  bool masked_ = false;         ///< whether it is masked
  bool last_ = false;           ///< and its tile's last one
  int weighed_ = C::key_block;  ///< the last block's keys that have weights, where blocks are halved
};

}  // namespace plait::cuda::hopper
