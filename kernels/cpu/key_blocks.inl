// The walk over an item's key blocks: each is packed once, for all tiles of the item and all query heads of
// the group. The includer has defined `word_elements`, `depth_step` (words of a step of a product's depth),
// `largest_block` and `panel`, beside what vector.inl needs.

// Keys are taken in steps: of whole vectors of scores, and of whole steps of the second product's depth.
constexpr Index key_step = std::max(lanes, depth_step* word_elements);
static_assert(largest_block % panel == 0 && panel % key_step == 0 && lanes % depth_step == 0);

#include "pack.inl"

/// Hands out parts of one thread's scratch. All are multiples of 16 floats, so each is aligned to 64 bytes.
struct ScratchParts {
  float* memory;
  Index total = 0;

  float* take(Index floats) {
    float* const part = memory;
    memory += round_up(floats, 16);
    total += round_up(floats, 16);
    return part;
  }
};

/// Where a block of keys and values lies packed.
struct PackedKeys {
  /// @param cached_words  words of keys and values that stay in the second cache, packed
  PackedKeys(ScratchParts& parts, Index head_dim, Index value_dim, Index cached_words)
      : depth(round_up((head_dim + word_elements - 1) / word_elements, depth_step)),
        row_words(round_up(depth, lanes)),
        value_columns(round_up(value_dim, lanes)),
        key_block(largest_block) {
    while (key_block > least_block && (depth + value_columns / word_elements) * key_block > cached_words) {
      key_block /= 2;
    }
    rows = parts.take(std::max(lanes * row_words, word_elements * value_columns));
    k = parts.take(key_block * depth);
    v = parts.take(key_block / word_elements * round_up(value_dim, panel));
  }

  /// @param columns  a multiple of `panel`
  /// @param key      counted from the block's first, a multiple of key_step
  [[nodiscard]] float const* values(Index column, Index key) const {
    return v + column * (key_block / word_elements) + key / word_elements * panel;
  }
  /// @param key  as above
  [[nodiscard]] float const* keys(Index key) const { return k + key / panel * depth * panel + key % panel; }

  static constexpr Index least_block = 256;
  Index depth;          ///< words of a query or key
  Index row_words;      ///< the same in whole vectors
  Index value_columns;  ///< the value dimension in whole vectors
  Index key_block;      ///< keys that are packed at once
  float* rows;          ///< rows on their way into a panel
  float* k;             ///< [key_block / panel][depth][panel], words
  float* v;             ///< [columns / panel][key_block / word_elements][panel], words
};

class KeyBlocks {
 public:
  KeyBlocks(FoldItem const& item, PackedKeys const& packed) : item_(item), packed_(packed) {}

  /// Packs block after block, and calls fold(range, its keys in the block, the block's first key) for each of
  /// the tiles' ranges that meet it.
  template <class Fold>
  void run(Fold&& fold) {
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
    Index const size = packed_.key_block;
    for (Index begin = round_down(hull.begin, size); begin < hull.end; begin += size) {
      Slice const block{begin, begin + size};
      if (!pack(block)) continue;
      for_each_range(block, [&](KeyRange const& range, Slice keys) { fold(range, keys, begin); });
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

  /// @returns whether some row sees a key of the block
  bool pack(Slice block) {
    SeenKeys seen;
    for_each_range(block, [&](KeyRange const&, Slice keys) {
      seen.add({keys.begin - block.begin, keys.end - block.begin});
    });
    if (seen.span.empty()) return false;
    seen.span = {round_down(seen.span.begin, key_step), round_up(seen.span.end, key_step)};
    FoldOperands const& operands = item_.operands;
    pack_keys(operands.k, item_.batch, item_.kv_head, block.begin, seen, packed_.depth, packed_.row_words,
              packed_.rows, packed_.k);
    pack_values(operands.v, item_.batch, item_.kv_head, block.begin, seen, packed_.key_block / word_elements,
                packed_.value_columns, packed_.rows, packed_.v);
    return true;
  }

  FoldItem const& item_;
  PackedKeys const& packed_;
  Index next_[item_tiles];  ///< per tile the first range that may still meet a block
};
