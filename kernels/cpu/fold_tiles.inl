// The flash tile on tile registers: `Tiles`, which the includer has defined, beside what vector.inl needs,
// `word_elements` and `store_weight_pair`.
//
// Tiles multiply so fast that the exponentials are most of the work. So the scores of the next block of rows
// by keys are multiplied while the last one's become weights, between whose rows the tiles' instructions
// stand. A row is not searched for its maximum: its weights refer to one that an earlier panel had, and only
// where they grow beyond `largest_weights` is the row's reference raised, and all that refers to it scaled.
#include "amx.inl"
#include "key_blocks.inl"

// Blocks of rows that are folded together: a panel of keys comes from the second cache for all of them.
constexpr Index row_blocks = 2;
constexpr Index weight_keys = 256;         // whose weights are kept, to be multiplied by values at once
constexpr float largest_weights = 256.0f;  // of two
constexpr Index cached_words = Index{128} * 1024;  // of packed keys and values: a quarter of 2 MiB
static_assert(PackedKeys::least_block % weight_keys == 0 && tile_rows % block_rows == 0);

/// One thread's scratch.
struct Scratch {
  Scratch(float* memory, Index head_dim, Index value_dim)
      : parts{memory},
        packed(parts, head_dim, value_dim, cached_words),
        o_floats(round_up(value_dim, panel) * block_rows) {
    q = parts.take(row_blocks * block_rows * packed.depth);
    scores = parts.take(2 * block_floats);
    weights = parts.take(row_blocks * block_rows * weight_keys / word_elements);
    sums = parts.take(row_blocks * block_rows * lanes);
    o = parts.take(row_blocks * o_floats);
  }

  ScratchParts parts;
  PackedKeys packed;
  Index o_floats;  ///< of a block of rows
  float* q;        ///< [row_blocks][depth / depth_step][block_rows][depth_step], words
  float* scores;   ///< [2][block_rows][panel]: of one block and of the next
  float* weights;  ///< [row_blocks][weight_keys / panel][block_rows][depth_step], words
  float* sums;     ///< [row_blocks][block_rows][lanes], of weights
  float* o;        ///< [row_blocks][columns / panel][block_rows][panel]
};

/// A block of rows, over the query heads of the group and the rows of a range, and where its parts of the
/// scratch lie.
struct RowBlock {
  Index count = 0;
  float* q;
  float* weights;
  float* sums;
  float* o;
  Slice span;                  ///< hull of the positions
  Slice seen;                  ///< keys that some row sees, from the block's first, in whole panels
  Slice clear;                 ///< of these, those that every row sees: they need no mask
  bool carried;                ///< whether `o` holds sums
  Index position[block_rows];  ///< counted from the fold's first query
  Index at[block_rows];        ///< in m, l and O
  Index head[block_rows];
  float reference[block_rows];  ///< the scores that weigh 1; −inf before the first
  float shift[block_rows];      ///< the same, but 0 for −inf
  float limit[block_rows];      ///< of two weights; below 0 where there is no reference

  void add(Index row_position, Index row_at, Index row_head) {
    span = count == 0 ? Slice{row_position, row_position + 1}
                      : Slice{std::min(span.begin, row_position), std::max(span.end, row_position + 1)};
    position[count] = row_position;
    at[count] = row_at;
    head[count] = row_head;
    ++count;
  }
  void refer_to(Index i, float score) {
    bool const none = score == -infinity;
    reference[i] = score;
    shift[i] = none ? 0.0f : score;  // no −inf − (−inf)
    limit[i] = none ? -1.0f : largest_weights;
  }
  [[nodiscard]] bool tall() const { return count > tile_side; }
};

/// A block of rows by a panel of keys.
struct Unit {
  RowBlock* block;
  Index key;  ///< from the packed block's first
};

/// The fold of some tiles for one key/value head.
class TileFold {
 public:
  explicit TileFold(FoldItem const& item)
      : item_(item),
        operands_(item.operands),
        scratch_(item.scratch, item.operands.q.dim, item.operands.v.dim),
        scale_(item.operands.scale * 1.44269504f) {}

  void run() {
    KeyBlocks(item_, scratch_.packed).run([this](KeyRange const& range, Slice keys, Index first) {
      fold_range(range, keys, first);
    });
  }

 private:
  /// The packed keys `keys`, of the block that begins at key `first`, into the range's rows of all heads.
  void fold_range(KeyRange const& range, Slice keys, Index first) {
    range_ = &range;
    keys_ = keys;
    first_ = first;
    Index used = 0;
    auto const flush = [&] {
      if (used > 0) fold_rows(used);
      used = 0;
    };
    for (Index head = item_.heads.begin; head < item_.heads.end; ++head) {
      for (Index row = range.rows.begin; row < range.rows.end; ++row) {
        if (used == 0 || blocks_[used - 1].count == block_rows) {
          if (used == row_blocks) flush();
          start(used++);
        }
        blocks_[used - 1].add(row, item_.origin + head * item_.state.rows + row, head);
      }
    }
    flush();
  }

  void start(Index index) {
    RowBlock& block = blocks_[index];
    block.count = 0;
    block.carried = false;
    block.q = scratch_.q + index * block_rows * scratch_.packed.depth;
    block.weights = scratch_.weights + index * block_rows * weight_keys / word_elements;
    block.sums = scratch_.sums + index * block_rows * lanes;
    block.o = scratch_.o + index * scratch_.o_floats;
  }

  /// The first `used` blocks of rows.
  void fold_rows(Index used) {
    Slice hull;
    for (Index i = 0; i < used; ++i) {
      RowBlock& block = blocks_[i];
      find_keys(block);
      if (block.seen.empty()) continue;
      hull = hull.empty() ? block.seen
                          : Slice{std::min(hull.begin, block.seen.begin), std::max(hull.end, block.seen.end)};
      load_rows(block);
    }
    for (Index begin = round_down(hull.begin, weight_keys); begin < hull.end; begin += weight_keys) {
      Slice const part{begin, begin + weight_keys};
      weigh(used, part);
      for (Index i = 0; i < used; ++i) add_values(blocks_[i], part);
    }
    for (Index i = 0; i < used; ++i) {
      if (!blocks_[i].seen.empty()) store_rows(blocks_[i]);
    }
  }

  void find_keys(RowBlock& block) const {
    Slice const hull = intersect(keys_, {block.span.begin + range_->lo, block.span.end + range_->hi});
    block.seen = {};
    if (hull.empty()) return;
    block.seen = {round_down(hull.begin - first_, panel), round_up(hull.end - first_, panel)};
    Slice const common =
        intersect(keys_, {block.span.end - 1 + range_->lo, block.span.begin + range_->hi + 1});
    block.clear = {common.begin - first_, common.end - first_};
  }

  /// Queries and statistics; O, which packed keys have thrown out since, comes nearer meanwhile.
  void load_rows(RowBlock& block) const {
    TensorView const& q = operands_.q;
    for (Index i = 0; i < block.count; ++i) {
      prefetch<1>(item_.state.o + block.at[i] * item_.state.value_dim, item_.state.value_dim * word_bytes);
      Index const later = block.position[i] + row_blocks * block_rows;
      if (later < range_->rows.end) {
        prefetch<0>(q.at(item_.batch, later, block.head[i]), q.dim * static_cast<Index>(size_bytes(q.dtype)));
      }
      to_words(q.dtype, q.at(item_.batch, block.position[i], block.head[i]), q.dim, scratch_.packed.rows);
      for (Index d = 0; d < scratch_.packed.depth; d += depth_step) {
        store_vector(block.q + d * block_rows + i * depth_step, load_vector(scratch_.packed.rows + d));
      }
      block.refer_to(i, item_.state.m[block.at[i]]);
      store_vector(block.sums + i * lanes, Vector{});
    }
  }

  template <int write>
  static void prefetch(void const* from, Index bytes) {
    constexpr Index line = 64;
    for (Index byte = 0; byte < bytes; byte += line) {
      __builtin_prefetch(static_cast<std::byte const*>(from) + byte, write, 2);
    }
  }

  /// Weights of the first `used` blocks of rows for the keys `part` that they see.
  void weigh(Index used, Slice part) {
    Unit units[row_blocks * weight_keys / panel];
    Index count = 0;
    for (Index key = part.begin; key < part.end; key += panel) {
      for (Index i = 0; i < used; ++i) {
        if (blocks_[i].seen.begin <= key && key < blocks_[i].seen.end) units[count++] = {&blocks_[i], key};
      }
    }
    float* const scores = scratch_.scores;
    if (count == 0) return;
    score(units[0], scores, [](Index) {});
    for (Index i = 0; i < count; ++i) {
      float const* const found = scores + i % 2 * block_floats;
      float* const next = scores + (i + 1) % 2 * block_floats;
      Unit const& unit = units[i];
      bool const clear = unit.block->clear.begin <= unit.key && unit.key + panel <= unit.block->clear.end;
      if (clear) {
        soften_beside<false>(unit, part.begin, found, i + 1 < count ? &units[i + 1] : nullptr, next);
      } else {
        soften_beside<true>(unit, part.begin, found, i + 1 < count ? &units[i + 1] : nullptr, next);
      }
    }
  }

  template <class Between>
  void score(Unit const& unit, float* scores, Between&& between) const {
    float const* const keys = scratch_.packed.keys(unit.key);
    Index const steps = scratch_.packed.depth / depth_step;
    if (unit.block->tall()) {
      multiply<true>(unit.block->q, keys, steps, false, scores, between);
    } else {
      multiply<false>(unit.block->q, keys, steps, false, scores, between);
    }
  }

  /// The unit's scores become weights, and meanwhile the next unit's scores are made. Some rows come after
  /// the last product, so that its sums are there when they are needed.
  template <bool masked>
  void soften_beside(Unit const& unit, Index part, float const* scores, Unit const* next,
                     float* next_scores) const {
    Index const count = unit.block->count;
    Index row = 0;
    auto const soften_to = [&](Index end) {
      for (; row < end; ++row) soften_row<masked>(*unit.block, row, unit.key, part, scores + row * panel);
    };
    if (next != nullptr) {
      Index const pieces = scratch_.packed.depth / depth_step + 1;
      score(*next, next_scores, [&](Index step) { soften_to(count * (step + 1) / pieces); });
    }
    soften_to(count);
  }

  /// Weights of row i for a panel of keys.
  template <bool masked>
  void soften_row(RowBlock& block, Index i, Index key, Index part, float const* scores) const {
    float* const weights = block.weights + (key - part) / panel * left_step + i * depth_step;
    Vector const shift = splat(block.shift[i]);
    auto const score_at = [&](Index lane) { return load_vector(scores + lane) * scale_ - shift; };
    Vector first = score_at(0);
    Vector second = score_at(lanes);
    if constexpr (masked) {
      first = visible(block, i, key, first);
      second = visible(block, i, key + lanes, second);
    }
    first = exp2_negative(first);
    second = exp2_negative(second);
    Vector const sum = first + second;
    if (!all_within(sum, block.limit[i])) [[unlikely]] {
      return soften_higher<masked>(block, i, key, part, scores);
    }
    store_vector(block.sums + i * lanes, load_vector(block.sums + i * lanes) + sum);
    store_weight_pair(weights, first, second);
  }

  /// The same where the reference may have to be raised before, which is also so for the first scores of a
  /// row. It grows in whole steps, so that what has been rounded is scaled exactly.
  template <bool masked>
  [[gnu::noinline]] void soften_higher(RowBlock& block, Index i, Index key, Index part,
                                       float const* scores) const {
    Vector first = load_vector(scores) * scale_;
    Vector second = load_vector(scores + lanes) * scale_;
    if constexpr (masked) {
      first = visible(block, i, key, first);
      second = visible(block, i, key + lanes, second);
    }
    Vector const none = splat(-infinity);  // which NaN counts as
    float const highest = across<larger>(larger(larger(first, none), larger(second, none)));
    float const before = block.reference[i];
    if (highest > before) {
      if (before == -infinity) {
        block.refer_to(i, highest);
      } else {
        block.refer_to(i, before + std::ceil(highest - before));
        scale_row(block, i, Slice{part, key}, exp2_negative(splat(before - block.reference[i])));
      }
    }
    Vector const shift = splat(block.shift[i]);
    first = exp2_negative(first - shift);
    second = exp2_negative(second - shift);
    store_vector(block.sums + i * lanes, load_vector(block.sums + i * lanes) + first + second);
    store_weight_pair(block.weights + (key - part) / panel * left_step + i * depth_step, first, second);
  }

  /// What refers to row i's reference: its sums, its O, and its weights of the keys `done`.
  void scale_row(RowBlock& block, Index i, Slice done, Vector factor) const {
    store_vector(block.sums + i * lanes, load_vector(block.sums + i * lanes) * factor);
    for (Index key = 0; key < done.size(); key += panel) {
      float* const weights = block.weights + key / panel * left_step + i * depth_step;
      auto const words = reinterpret_cast<IntVector>(load_vector(weights));
      Vector const even = reinterpret_cast<Vector>(words << 16) * factor;
      Vector const odd = reinterpret_cast<Vector>(words & ~0xffff) * factor;
      auto const low = reinterpret_cast<IntVector>(even) >> 16 & 0xffff;
      store_vector(weights, reinterpret_cast<Vector>(low | (reinterpret_cast<IntVector>(odd) & ~0xffff)));
    }
    if (!block.carried) return;
    for (Index at = i * panel; at < scratch_.o_floats; at += block_floats) {
      store_vector(block.o + at, load_vector(block.o + at) * factor);
      store_vector(block.o + at + lanes, load_vector(block.o + at + lanes) * factor);
    }
  }

  /// Scores of row i for the keys from `key` on; −inf where it does not see them.
  [[nodiscard]] Vector visible(RowBlock const& block, Index i, Index key, Vector scores) const {
    Slice const seen = intersect(keys_, {block.position[i] + range_->lo, block.position[i] + range_->hi + 1});
    Index const origin = first_ + key;
    auto const begin = static_cast<std::int32_t>(std::clamp<Index>(seen.begin - origin, 0, lanes));
    auto const end = static_cast<std::int32_t>(std::clamp<Index>(seen.end - origin, 0, lanes));
    IntVector const lane = numbered([](int number) { return number; });
    return (lane >= begin) & (lane < end) ? scores : splat(-infinity);
  }

  /// The block's own O += weights · V for the keys of `part` that it sees.
  void add_values(RowBlock& block, Slice part) const {
    Slice const keys = intersect(part, block.seen);
    if (keys.empty()) return;
    float const* const weights = block.weights + (keys.begin - part.begin) / panel * left_step;
    constexpr Index step = depth_step * word_elements;
    static_assert(step == panel);
    auto const nothing = [](Index) {};
    for (Index column = 0; column < item_.state.value_dim; column += panel) {
      float* const sums = block.o + column * block_rows;
      float const* const values = scratch_.packed.values(column, keys.begin);
      if (block.tall()) {
        multiply<true>(weights, values, keys.size() / step, block.carried, sums, nothing);
      } else {
        multiply<false>(weights, values, keys.size() / step, block.carried, sums, nothing);
      }
    }
    block.carried = true;
  }

  /// state ← state ⊕ what the block has summed. A packed block's keys are summed on their own: over long
  /// sequences that is more exact than adding each of them to O.
  void store_rows(RowBlock const& block) const {
    StateView const& state = item_.state;
    for (Index i = 0; i < block.count; ++i) {
      float& m = state.m[block.at[i]];
      float& l = state.l[block.at[i]];
      float const reference = block.reference[i];
      float const kept = reference == m   ? 1.0f
                         : m == -infinity ? 0.0f
                                          : exp2_negative(splat(m - reference))[0];
      l = l * kept + across<added>(load_vector(block.sums + i * lanes));
      // A row whose scores were NaN is not the identity: its weights refer to 0.
      m = reference == -infinity && l != 0.0f ? 0.0f : reference;
      float* const o = state.o + block.at[i] * state.value_dim;
      for (Index column = 0; column < state.value_dim; column += lanes) {
        Index const width = std::min(lanes, state.value_dim - column);
        float const* const sums = block.o + column / panel * block_floats + i * panel + column % panel;
        store_elements(o + column, load_elements<DType::f32>(o + column, width) * kept + load_vector(sums),
                       width);
      }
    }
  }

  FoldItem const& item_;
  FoldOperands const& operands_;
  Scratch scratch_;
  float scale_;
  // Of the range that is being folded:
  KeyRange const* range_ = nullptr;
  Slice keys_;       ///< the packed ones that it has
  Index first_ = 0;  ///< the first packed one
  RowBlock blocks_[row_blocks];
};

std::size_t scratch_floats(Index head_dim, Index value_dim) {
  return static_cast<std::size_t>(Scratch(nullptr, head_dim, value_dim).parts.total);
}

/// The thread holds its tiles for as long as it folds.
void fold_tiles(FoldItem const& item) {
  Tiles::configure();
  TileFold(item).run();
  Tiles::release();
}
