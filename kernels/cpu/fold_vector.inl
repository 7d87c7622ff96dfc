// The blocked flash tile. The includer has defined, beside what vector.inl needs:
// `word_elements` (elements in a 32-bit word along a product's depth), `multiply` (the micro-kernel) for
// `block_rows` rows and fewer in steps of `row_step`, and depths that are multiples of `depth_step` words,
// and `store_weights`.
//
// Per block of keys, K is packed transposed and V as it is, for all tiles of the item and all query heads of
// the group. Both products run in one micro-kernel: a block of rows by one panel of the packed words. Scores
// are scaled by scale · log2(e), masked and their maxima found as they leave it; one pass makes them weights.

#include "key_blocks.inl"

static_assert(largest_block <= largest_dim && tile_rows % block_rows == 0 && block_rows % row_step == 0);

constexpr Index queries_at_once = block_rows / 6;  // loaded between two panels of scores
// Words of packed keys and values, for half of the second cache: 1 MiB, which servers with AVX-512 have, or
// 512 KiB. A row's scores stay in the first.
constexpr Index cached_words = (registers > 16 ? 256 : 128) * largest_block;

/// Calls use(rows, vectors), both std::integral_constant, with the least number of rows that will do.
template <class Use>
inline void with_shape(Index rows, Index vectors, Use&& use) {
  auto const with_vectors = [&](auto constant) {
    if (vectors == panel_vectors) return use(constant, std::integral_constant<Index, panel_vectors>{});
    use(constant, std::integral_constant<Index, 1>{});
  };
  if (rows <= row_step) return with_vectors(std::integral_constant<Index, row_step>{});
  if (rows <= 2 * row_step) return with_vectors(std::integral_constant<Index, 2 * row_step>{});
  with_vectors(std::integral_constant<Index, block_rows>{});
}

/// One thread's scratch.
struct Scratch {
  Scratch(float* memory, Index head_dim, Index value_dim)
      : parts{memory}, packed(parts, head_dim, value_dim, cached_words) {
    for (float*& block : q) block = parts.take(block_rows * row_stride);
    scores = parts.take(block_rows * row_stride);
    highest = parts.take(block_rows * lanes);
  }

  ScratchParts parts;
  PackedKeys packed;
  float* q[2];     ///< [block_rows], words: of this block of rows and of the next
  float* scores;   ///< [block_rows][key_block], then weights, as words
  float* highest;  ///< [block_rows][lanes]: the scores' maximum is in some lane
};

/// A block of rows, over the query heads of the group and the rows of a range.
struct RowBlock {
  Index count = 0;
  Index loaded = 0;  ///< of these, rows whose queries lie in `q`
  float* q = nullptr;
  Slice span;                  ///< hull of the positions
  Index position[block_rows];  ///< counted from the fold's first query
  Index at[block_rows];        ///< in m, l and O
  Index head[block_rows];

  void add(Index row_position, Index row_at, Index row_head) {
    span = count == 0 ? Slice{row_position, row_position + 1}
                      : Slice{std::min(span.begin, row_position), std::max(span.end, row_position + 1)};
    position[count] = row_position;
    at[count] = row_at;
    head[count] = row_head;
    ++count;
  }
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
  void fold_range(KeyRange const& range, Slice keys, Index first) const {
    RowBlock blocks[2];
    for (Index i = 0; i < 2; ++i) blocks[i].q = scratch_.q[i];
    Index filling = 0;
    auto const turn = [&] {
      RowBlock& next = blocks[filling];
      filling = 1 - filling;
      RowBlock& block = blocks[filling];
      if (block.count > 0) fold_rows(range, keys, first, block, next);
      load_queries(next, next.count);
      block.count = 0;
      block.loaded = 0;
    };
    for (Index head = item_.heads.begin; head < item_.heads.end; ++head) {
      for (Index row = range.rows.begin; row < range.rows.end; ++row) {
        blocks[filling].add(row, item_.origin + head * item_.state.rows + row, head);
        if (blocks[filling].count == block_rows) turn();
      }
    }
    turn();
    turn();
  }

  [[nodiscard]] void const* query(RowBlock const& block, Index i) const {
    return operands_.q.at(item_.batch, block.position[i], block.head[i]);
  }

  /// The block's next `count` queries; the ones after them are asked for.
  void load_queries(RowBlock& block, Index count) const {
    Index const end = std::min(block.loaded + count, block.count);
    for (Index i = block.loaded; i < end; ++i) {
      to_words(operands_.q.dtype, query(block, i), operands_.q.dim, block.q + i * row_stride);
    }
    block.loaded = end;
    Index const bytes = operands_.q.dim * static_cast<Index>(size_bytes(operands_.q.dtype));
    for (Index i = end; i < std::min(end + queries_at_once, block.count); ++i) {
      prefetch<0>(query(block, i), bytes);
    }
  }

  /// Asks for the lines of `bytes` from `from` on, which may begin within one.
  template <int write>
  static void prefetch(void const* from, Index bytes) {
    constexpr Index line = 64;
    auto const* const first = static_cast<std::byte const*>(from);
    for (Index byte = 0; byte < bytes; byte += line) __builtin_prefetch(first + byte, write, 2);
    __builtin_prefetch(first + bytes - 1, write, 2);
  }

  /// A tile's rows come by once per key block, and the packed keys and values have thrown them out since:
  /// while this block is folded, its O comes nearer, and the next one's queries are loaded between panels.
  void fold_rows(KeyRange const& range, Slice keys, Index first, RowBlock const& block,
                 RowBlock& next) const {
    // The keys that some row of the block sees, counted from the first packed key.
    Slice const hull = intersect(keys, {block.span.begin + range.lo, block.span.end + range.hi});
    if (hull.empty()) return;
    Slice const seen{hull.begin - first, hull.end - first};
    Slice const columns{round_down(seen.begin, key_step), round_up(seen.end, key_step)};
    // Of these, those that every row sees need no mask.
    Slice const common = intersect(keys, {block.span.end - 1 + range.lo, block.span.begin + range.hi + 1});
    Slice const clear{common.begin - first, common.end - first};
    for (Index i = 0; i < block.count; ++i) {
      prefetch<1>(item_.state.o + block.at[i] * item_.state.value_dim,
                  item_.state.value_dim * static_cast<Index>(sizeof(float)));
      store_vector(scratch_.highest + i * lanes, splat(-infinity));
    }
    load_queries(next, 0);  // asks for the first
    for (Index column = columns.begin; column < columns.end;) {
      Index const end = std::min(round_down(column, panel) + panel, columns.end);
      if (clear.begin <= column && end <= clear.end) {
        score(block, {column, end}, [](Index, Index, Vector scores) { return scores; });
      } else {
        score(block, {column, end}, [&](Index i, Index at, Vector scores) {
          Slice const visible =
              intersect(keys, {block.position[i] + range.lo, block.position[i] + range.hi + 1});
          auto const begin =
              static_cast<std::int32_t>(std::clamp<Index>(visible.begin - first - at, 0, lanes));
          auto const last = static_cast<std::int32_t>(std::clamp<Index>(visible.end - first - at, 0, lanes));
          IntVector const lane = numbered([](int number) { return number; });
          return (lane >= begin) & (lane < last) ? scores : splat(-infinity);
        });
      }
      column = end;
      load_queries(next, queries_at_once);
    }
    float kept[block_rows];
    for (Index i = 0; i < block.count; ++i) {
      float* const row = scratch_.scores + i * row_stride;
      kept[i] = soften(row, columns, load_vector(scratch_.highest + i * lanes), item_.state.m[block.at[i]],
                       item_.state.l[block.at[i]],
                       [&](Index column, Vector weight) { store_weights(row, column, weight); });
    }
    add_values(block, kept, seen);
  }

  /// Scores of the block's rows and some columns of one panel; `mask(row, column, scores)` hides some.
  template <class Mask>
  void score(RowBlock const& block, Slice columns, Mask&& mask) const {
    float const* const packed = scratch_.packed.keys(columns.begin);
    with_shape(block.count, columns.size() / lanes, [&](auto row_constant, auto vector_constant) {
      constexpr Index rows = row_constant;
      constexpr Index vectors = vector_constant;
      Vector sums[rows][vectors];
      multiply<rows, vectors>(block.q, packed, scratch_.packed.depth, sums);
#pragma GCC unroll row_unroll
      for (Index i = 0; i < rows; ++i) {
        if (i >= block.count) break;
        Vector highest = load_vector(scratch_.highest + i * lanes);
#pragma GCC unroll 2
        for (Index j = 0; j < vectors; ++j) {
          Index const column = columns.begin + j * lanes;
          Vector const scores = mask(i, column, sums[i][j] * scale_);
          store_vector(scratch_.scores + i * row_stride + column, scores);
          highest = larger(scores, highest);
        }
        store_vector(scratch_.highest + i * lanes, highest);
      }
    });
  }

  /// O = kept · O + weights · V for the keys `seen`, counted from the first packed one. The block's keys are
  /// summed on their own: over long sequences that is more exact than adding each of them to O.
  void add_values(RowBlock const& block, float const* kept, Slice seen) const {
    constexpr Index step = depth_step * word_elements;
    Slice const keys{round_down(seen.begin, step), round_up(seen.end, step)};
    Slice const words{keys.begin / word_elements, keys.end / word_elements};
    Index const dim = item_.state.value_dim;
    for (Index column = 0; column < dim; column += panel) {
      float const* const packed = scratch_.packed.values(column, keys.begin);
      Index const width = std::min(panel, dim - column);
      with_shape(block.count, width > lanes ? 2 : 1, [&](auto row_constant, auto vector_constant) {
        constexpr Index rows = row_constant;
        constexpr Index vectors = vector_constant;
        Vector sums[rows][vectors];
        multiply<rows, vectors>(scratch_.scores + words.begin, packed, words.size(), sums);
#pragma GCC unroll row_unroll
        for (Index i = 0; i < rows; ++i) {
          if (i >= block.count) break;
          float* const o = item_.state.o + block.at[i] * dim + column;
#pragma GCC unroll 2
          for (Index j = 0; j < vectors; ++j) {
            Index const part = std::min(lanes, width - j * lanes);
            Vector const before = load_elements<DType::f32>(o + j * lanes, part);
            store_elements(o + j * lanes, before * kept[i] + sums[i][j], part);
          }
        }
      });
    }
  }

  FoldItem const& item_;
  FoldOperands const& operands_;
  Scratch scratch_;
  float scale_;
};

void fold_packed(FoldItem const& item) {
  TileFold(item).run();
}

std::size_t scratch_floats(Index head_dim, Index value_dim) {
  return static_cast<std::size_t>(Scratch(nullptr, head_dim, value_dim).parts.total);
}
