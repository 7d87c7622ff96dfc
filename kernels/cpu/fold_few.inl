// The fold of a few rows, as in decoding: each key is used too few times to be worth packing, and memory is
// the bound. Keys and values of all heads are read once, in the order in which they lie; the rows that share
// a key/value head use what was read together. Needs what vector.inl needs.

#include "element_pair.inl"

constexpr Index group_rows = 4;   // a fifth row's arithmetic costs more than packing
constexpr Index few_chunk = 512;  // keys whose scores are kept
constexpr Index few_stride =
    few_chunk + 16;              // scores of one row, and space, so that rows do not share cache sets
constexpr Index value_keys = 8;  // whose values are added before the sums are stored
constexpr Index few_ahead = 32;  // rows of keys or values to ask the next cache for, before they are needed
constexpr Index most_ahead = 64 * 1024;  // the same in bytes, at most
static_assert(few_chunk % lanes == 0 && few_chunk % value_keys == 0);

/// Lane i of the result is the sum of all lanes of rows[i].
template <int distance = 1>
inline Vector sums_of(Vector (&rows)[lanes]) {
  constexpr int second = static_cast<int>(lanes);  // the first lane of a shuffle's second operand
  IntVector const low = numbered([](int i) { return (i & distance) != 0 ? second + i - distance : i; });
  IntVector const high = numbered([](int i) { return (i & distance) != 0 ? second + i : i + distance; });
#pragma GCC unroll 16
  for (int i = 0; i < static_cast<int>(lanes); i += 2 * distance) {
    Vector const a = rows[i];
    Vector const b = rows[i + distance];
    rows[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
  }
  if constexpr (2 * distance < static_cast<int>(lanes)) {
    return sums_of<2 * distance>(rows);
  } else {
    return rows[0];
  }
}

/// @tparam group  rows of each key/value head: query rows times query heads
template <DType type, Index group>
class FewFold {
 public:
  explicit FewFold(FoldItem const& item)
      : item_(item),
        k_(item.operands.k),
        v_(item.operands.v),
        scale_(item.operands.scale * 1.44269504f),
        q_(item.scratch),
        scores_(q_ + few_rows * padded(k_.dim)),
        sums_(scores_ + few_rows * few_stride),
        products_(sums_ + few_rows * padded(v_.dim)) {}

  void run(KeyRange const& range) {
    load_rows(range.rows);
    for (Index begin = range.keys.begin; begin < range.keys.end; begin += few_chunk) {
      fold_chunk(range, {begin, std::min(begin + few_chunk, range.keys.end)});
    }
  }

  static Index scratch_floats(Index head_dim, Index value_dim) {
    return few_rows * (padded(head_dim) + few_stride + padded(value_dim) + lanes * lanes);
  }

 private:
  struct Row {
    Index position;
    Index at;
    Vector highest;
  };

  static Index padded(Index dim) { return round_up(dim, lanes); }

  void load_rows(Slice rows) {
    count_ = 0;
    for (Index head = item_.heads.begin; head < item_.heads.end; ++head) {
      for (Index row = rows.begin; row < rows.end; ++row) {
        auto const* const from = static_cast<std::byte const*>(item_.operands.q.at(item_.batch, row, head));
        float* const to = q_ + count_ * padded(k_.dim);
        for_elements(
            k_.dim,
            [&](Index d) {
              auto const [first, second] = load_pair<type>(from + d * bytes);
              store_vector(to + d, first);
              store_vector(to + d + lanes, second);
            },
            [&](Index d, Index width) {
              store_vector(to + d, load_elements<type>(from + d * bytes, width));
            });
        rows_[count_++] = {row, item_.origin + head * item_.state.rows + row, Vector{}};
      }
    }
  }

  void fold_chunk(KeyRange const& range, Slice keys) {
    // The keys that some row sees: the others are not read.
    Slice const seen = intersect(keys, {range.rows.begin + range.lo, range.rows.end + range.hi});
    if (seen.empty()) return;
    for (Index i = 0; i < count_; ++i) rows_[i].highest = splat(-infinity);
    for (Index first = keys.begin; first < keys.end; first += lanes) {
      multiply_keys(intersect(seen, {first, first + lanes}), first);
      for (Index i = 0; i < count_; ++i) {
        Vector const scores = scores_of(i, range, keys, first);
        store_vector(scores_ + i * few_stride + (first - keys.begin), scores);
        rows_[i].highest = larger(scores, rows_[i].highest);
      }
    }
    Slice const columns{0, round_up(keys.size(), lanes)};
    float kept[few_rows];
    for (Index i = 0; i < count_; ++i) {
      float* const weights = scores_ + i * few_stride;
      kept[i] =
          soften(weights, columns, rows_[i].highest, item_.state.m[rows_[i].at], item_.state.l[rows_[i].at],
                 [&](Index column, Vector weight) { store_vector(weights + column, weight); });
    }
    // The chunk is summed on its own: over long sequences that is more exact than adding every few keys to O.
    __builtin_memset(sums_, 0, static_cast<std::size_t>(count_ * padded(v_.dim)) * sizeof(float));
    for (Index first = seen.begin; first < seen.end; first += value_keys) {
      Slice const part = intersect(seen, {first, first + value_keys});
      if (part.size() == value_keys) {
        add_values(std::integral_constant<Index, value_keys>{}, first, scores_ + (first - keys.begin));
      } else {
        add_values(part.size(), first, scores_ + (first - keys.begin));
      }
    }
    for (Index i = 0; i < count_; ++i) add_sums(i, kept[i]);
  }

  /// products_[row][key − first][lane] = parts of the products of every row and some keys.
  void multiply_keys(Slice keys, Index first) const {
    Index const stride = padded(k_.dim);
    for (Index key = keys.begin; key < keys.end; ++key) {
      auto const* k = static_cast<std::byte const*>(k_.at(item_.batch, key, item_.kv_head));
      for (Index row = 0; row < count_; row += group, k += k_.head_stride * bytes) {
        float const* const q = q_ + row * stride;
        Vector sums[group] = {};
        for_elements(
            k_.dim,
            [&](Index d) {
              ask_ahead(k, d, k_);
              auto const [a, b] = load_pair<type>(k + d * bytes);
#pragma GCC unroll 4
              for (Index i = 0; i < group; ++i) {
                sums[i] += load_vector(q + i * stride + d) * a;
                sums[i] += load_vector(q + i * stride + d + lanes) * b;
              }
            },
            [&](Index d, Index width) {
              Vector const a = load_elements<type>(k + d * bytes, width);
#pragma GCC unroll 4
              for (Index i = 0; i < group; ++i) sums[i] += load_vector(q + i * stride + d) * a;
            });
#pragma GCC unroll 4
        for (Index i = 0; i < group; ++i) {
          store_vector(products_ + ((row + i) * lanes + (key - first)) * lanes, sums[i]);
        }
      }
    }
  }

  /// Row i's scores of keys [first, first + lanes), −inf where not visible.
  Vector scores_of(Index i, KeyRange const& range, Slice keys, Index first) const {
    Index const position = rows_[i].position;
    Slice const visible =
        intersect(intersect(keys, {position + range.lo, position + range.hi + 1}), {first, first + lanes});
    if (visible.empty()) return splat(-infinity);
    Vector sums[lanes];
    for (Index key = 0; key < lanes; ++key) sums[key] = load_vector(products_ + (i * lanes + key) * lanes);
    auto const begin = static_cast<std::int32_t>(visible.begin - first);
    auto const end = static_cast<std::int32_t>(visible.end - first);
    IntVector const lane = numbered([](int number) { return number; });
    return (lane >= begin) & (lane < end) ? sums_of(sums) * scale_ : splat(-infinity);
  }

  /// The sums of all rows += weights · V for `count` keys from `first` on.
  /// @param weights  [few_rows][few_stride], of the first key and those after it
  template <class Count>
  void add_values(Count count, Index first, float const* weights) const {
    constexpr Index pairs = group < 4 ? 4 / group : 1;  // with all rows' sums, half of 16 registers
    auto const* v = static_cast<std::byte const*>(v_.at(item_.batch, first, item_.kv_head));
    for (Index row = 0; row < count_; row += group, v += v_.head_stride * bytes) {
      float const* const weight = weights + row * few_stride;
      float* const sums = sums_ + row * padded(v_.dim);
      Index d = 0;
      for (; d + 2 * pairs * lanes <= v_.dim; d += 2 * pairs * lanes) {
        add_pairs<pairs>(count, v + d * bytes, weight, sums + d);
      }
      for_elements(
          v_.dim - d, [&](Index at) { add_pairs<1>(count, v + (d + at) * bytes, weight, sums + d + at); },
          [&](Index at, Index width) {
            add_rest(count, v + (d + at) * bytes, width, weight, sums + d + at);
          });
    }
  }

  template <Index pairs, class Count>
  void add_pairs(Count count, std::byte const* v, float const* weight, float* sums) const {
    Index const next = padded(v_.dim);
    Vector total[group][2 * pairs];
#pragma GCC unroll 4
    for (Index i = 0; i < group; ++i) {
#pragma GCC unroll 8
      for (Index j = 0; j < 2 * pairs; ++j) total[i][j] = load_vector(sums + i * next + j * lanes);
    }
    for (Index key = 0; key < count; ++key, v += v_.row_stride * bytes) {
#pragma GCC unroll 4
      for (Index j = 0; j < pairs; ++j) {
        ask_ahead(v, 2 * j * lanes, v_);
        auto const [a, b] = load_pair<type>(v + 2 * j * lanes * bytes);
#pragma GCC unroll 4
        for (Index i = 0; i < group; ++i) {
          Vector const w = splat(weight[i * few_stride + key]);
          total[i][2 * j] += w * a;
          total[i][2 * j + 1] += w * b;
        }
      }
    }
#pragma GCC unroll 4
    for (Index i = 0; i < group; ++i) {
#pragma GCC unroll 8
      for (Index j = 0; j < 2 * pairs; ++j) store_vector(sums + i * next + j * lanes, total[i][j]);
    }
  }

  /// The same for `width` columns, a vector of them or fewer.
  void add_rest(Index count, std::byte const* v, Index width, float const* weight, float* sums) const {
    for (Index key = 0; key < count; ++key, v += v_.row_stride * bytes) {
      Vector const a = load_elements<type>(v, width);
      for (Index i = 0; i < group; ++i) {
        float* const sum = sums + i * padded(v_.dim);
        store_vector(sum, load_vector(sum) + splat(weight[i * few_stride + key]) * a);
      }
    }
  }

  /// O = kept · O + sums.
  void add_sums(Index i, float kept) const {
    float* const o = item_.state.o + rows_[i].at * v_.dim;
    float const* const sums = sums_ + i * padded(v_.dim);
    for_elements(
        v_.dim,
        [&](Index d) {
          auto const [a, b] = in_order<type>({load_vector(sums + d), load_vector(sums + d + lanes)});
          store_vector(o + d, load_vector(o + d) * kept + a);
          store_vector(o + d + lanes, load_vector(o + d + lanes) * kept + b);
        },
        [&](Index d, Index width) {
          Vector const before = load_elements<DType::f32>(o + d, width);
          store_elements(o + d, before * kept + load_vector(sums + d), width);
        });
  }

  /// Asks for the cache lines of 2 · lanes elements, once each, before they are needed.
  static void ask_ahead(std::byte const* row, Index element, TensorView const& tensor) {
    constexpr Index line = 64;
    constexpr Index width = 2 * lanes * bytes;
    if (width < line && element * bytes % line != 0) return;
    auto const* const from =
        row + element * bytes + std::min(few_ahead * tensor.row_stride * bytes, most_ahead);
    for (Index byte = 0; byte < width; byte += line) __builtin_prefetch(from + byte, 0, 2);
  }

  static constexpr Index bytes = static_cast<Index>(size_bytes(type));
  FoldItem const& item_;
  TensorView const& k_;
  TensorView const& v_;
  float scale_;
  float* q_;         ///< [few_rows][padded head dimension], in the order of pairs
  float* scores_;    ///< [few_rows][few_stride], then weights
  float* sums_;      ///< [few_rows][padded value dimension], in the order of pairs: of a chunk's keys
  float* products_;  ///< [few_rows][lanes keys][lanes]
  Index count_ = 0;
  Row rows_[few_rows];
};

std::size_t few_scratch_floats(Index head_dim, Index value_dim) {
  return static_cast<std::size_t>(FewFold<DType::f32, 1>::scratch_floats(head_dim, value_dim));
}

template <DType type>
void fold_few_of(FoldItem const& item, KeyRange const& range) {
  switch (item.operands.q.heads / item.operands.k.heads * range.rows.size()) {
    case 1:
      return FewFold<type, 1>(item).run(range);
    case 2:
      return FewFold<type, 2>(item).run(range);
    case 3:
      return FewFold<type, 3>(item).run(range);
    case group_rows:
      return FewFold<type, group_rows>(item).run(range);
    default:
      __builtin_unreachable();  // others are not few
  }
}

void fold_few(FoldItem const& item) {
  Slice const ranges = ranges_of(item, item.tiles.begin);
  with_dtype(item.operands.k.dtype, [&](auto type) {
    for (Index i = ranges.begin; i < ranges.end; ++i) fold_few_of<type>(item, range_at(item, i));
  });
}
