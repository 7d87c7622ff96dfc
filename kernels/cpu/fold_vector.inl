// The blocked flash tile. The includer has defined, beside what vector.inl needs:
// `word_elements` (elements in a 32-bit word along a product's depth), `multiply` (the micro-kernel) for
// `block_rows` rows and fewer in steps of `row_step`, and depths that are multiples of `depth_step` words,
// and `store_weights`.
//
// Per block of keys, K is packed transposed and V as it is, for all tiles of the item and all query heads of
// the group. Both products run in one micro-kernel: a block of rows by one panel of the packed words. Scores
// are scaled by scale · log2(e), masked and their maxima found as they leave it; one pass makes them weights.

// Keys are taken in steps: of whole vectors of scores, and of whole steps of the second product's depth.
constexpr Index key_step = std::max(lanes, depth_step* word_elements);
static_assert(largest_block % panel == 0 && largest_block <= largest_dim && tile_rows % block_rows == 0 &&
              block_rows % row_step == 0 && panel % key_step == 0 && lanes % depth_step == 0);

#include "pack.inl"

constexpr Index queries_at_once = block_rows / 6;  // loaded between two panels of scores
// Words of a key and its value of which the second cache holds the largest block: in half of 1 MiB, which
// servers with AVX-512 have, or of 512 KiB.
constexpr Index cached_words = registers > 16 ? 256 : 128;

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

/// One thread's scratch. All parts are multiples of 16 floats, so each is aligned to 64 bytes.
struct Scratch {
  Scratch(float* memory, Index head_dim, Index value_dim)
      : depth(round_up((head_dim + word_elements - 1) / word_elements, depth_step)),
        row_words(round_up(depth, lanes)),
        value_columns(round_up(value_dim, lanes)),
        // K and V of a block, packed, stay in the second cache; and a row's scores in the first.
        key_block(depth + value_columns / word_elements <= cached_words ? largest_block : largest_block / 2) {
    auto const take = [&](Index floats) {
      float* const part = memory;
      memory += round_up(floats, 16);
      total += round_up(floats, 16);
      return part;
    };
    for (float*& block : q) block = take(block_rows * row_stride);
    scores = take(block_rows * row_stride);
    highest = take(block_rows * lanes);
    rows = take(std::max(lanes * row_words, word_elements * value_columns));
    k = take(key_block * depth);
    v = take(key_block / word_elements * round_up(value_dim, panel));
  }

  Index depth;          ///< words of a query or key
  Index row_words;      ///< the same in whole vectors
  Index value_columns;  ///< the value dimension in whole vectors
  Index key_block;      ///< keys that are packed at once
  float* q[2];          ///< [block_rows], words: of this block of rows and of the next
  float* scores;        ///< [block_rows][key_block], then weights, as words
  float* highest;       ///< [block_rows][lanes]: the scores' maximum is in some lane
  float* rows;          ///< rows on their way into a panel
  float* k;             ///< [key_block / panel][depth][panel], words
  float* v;             ///< [columns / panel][key_block / word_elements][panel], words
  Index total = 0;
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
    Slice hull;
    for (Index tile = item_.tiles.begin; tile < item_.tiles.end; ++tile) {
      Slice const ranges = ranges_of(item_, tile);
      next_[tile - item_.tiles.begin] = ranges.begin;
      for (Index i = ranges.begin; i < ranges.end; ++i) {
        Slice const keys = range_at(item_, i).keys;
        hull = hull.empty() ? keys : Slice{std::min(hull.begin, keys.begin), std::max(hull.end, keys.end)};
      }
    }
    // Blocks begin at multiples of their size: how tiles share items changes no result.
    for (Index begin = round_down(hull.begin, scratch_.key_block); begin < hull.end;
         begin += scratch_.key_block) {
      fold_keys({begin, begin + scratch_.key_block});
    }
  }

 private:
  /// Calls use(range, its keys in the block) for each tile's ranges that meet a block of keys.
  template <class Use>
  void for_each_range(Slice block, Use&& use) {
    for (Index tile = item_.tiles.begin; tile < item_.tiles.end; ++tile) {
      Slice const ranges = ranges_of(item_, tile);
      Index& next = next_[tile - item_.tiles.begin];
      while (next < ranges.end && range_at(item_, next).keys.end <= block.begin) ++next;
      for (Index i = next; i < ranges.end; ++i) {
        KeyRange const range = range_at(item_, i);
        if (range.keys.begin >= block.end) break;
        Slice const keys = intersect(range.keys, block);
        if (!keys.empty()) use(range, keys);
      }
    }
  }

  void fold_keys(Slice block) {
    SeenKeys seen;
    for_each_range(block, [&](KeyRange const&, Slice keys) {
      seen.add({keys.begin - block.begin, keys.end - block.begin});
    });
    if (seen.span.empty()) return;
    seen.span = {round_down(seen.span.begin, key_step), round_up(seen.span.end, key_step)};
    pack_keys(operands_.k, item_.batch, item_.kv_head, block.begin, seen, scratch_.depth, scratch_.row_words,
              scratch_.rows, scratch_.k);
    pack_values(operands_.v, item_.batch, item_.kv_head, block.begin, seen,
                scratch_.key_block / word_elements, scratch_.value_columns, scratch_.rows, scratch_.v);
    for_each_range(block, [&](KeyRange const& range, Slice keys) { fold_range(range, keys, block.begin); });
  }

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

  template <int write>
  static void prefetch(void const* from, Index bytes) {
    constexpr Index line = 64;
    for (Index byte = 0; byte < bytes; byte += line) {
      __builtin_prefetch(static_cast<std::byte const*>(from) + byte, write, 2);
    }
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
    float const* const packed =
        scratch_.k + columns.begin / panel * scratch_.depth * panel + columns.begin % panel;
    with_shape(block.count, columns.size() / lanes, [&](auto row_constant, auto vector_constant) {
      constexpr Index rows = row_constant;
      constexpr Index vectors = vector_constant;
      Vector sums[rows][vectors];
      multiply<rows, vectors>(block.q, packed, scratch_.depth, sums);
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
    Slice const words{round_down(seen.begin, step) / word_elements, round_up(seen.end, step) / word_elements};
    Index const block_words = scratch_.key_block / word_elements;
    Index const dim = item_.state.value_dim;
    for (Index column = 0; column < dim; column += panel) {
      float const* const packed = scratch_.v + column * block_words + words.begin * panel;
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
  Index next_[item_tiles];  ///< per tile the first range that may still meet a block
};

void fold_packed(FoldItem const& item) {
  TileFold(item).run();
}

std::size_t scratch_floats(Index head_dim, Index value_dim) {
  return static_cast<std::size_t>(Scratch(nullptr, head_dim, value_dim).total);
}
