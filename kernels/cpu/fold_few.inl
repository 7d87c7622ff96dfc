// The fold of a few rows, as in decoding: each key is used too few times to be worth packing, and memory is
// the bound. Keys and values are read once, where they lie, in chunks; several rows use a group of keys while
// it is in the nearest cache. Needs what vector.inl needs.

constexpr Index group_rows = 4;   // a fifth row's arithmetic costs more than packing
constexpr Index few_chunk = 512;  // keys whose scores are kept
constexpr Index few_stride =
    few_chunk + 16;  // scores of one row, and space, so that rows do not share cache sets
constexpr Index near_bytes = 64 * 1024;
constexpr Index few_ahead = 32;  // rows of keys or values to ask the next cache for, before they are needed

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

template <DType type>
class FewFold {
 public:
  explicit FewFold(FoldItem const& item)
      : item_(item),
        k_(item.operands.k),
        v_(item.operands.v),
        scale_(item.operands.scale * 1.44269504f),
        q_(item.scratch),
        scores_(q_ + few_rows * q_stride()),
        sums_(scores_ + few_rows * few_stride) {}

  void run() {
    Slice const ranges = ranges_of(item_, item_.tiles.begin);
    for (Index i = ranges.begin; i < ranges.end; ++i) {
      KeyRange const range = range_at(item_, i);
      load_rows(range.rows);
      for (Index begin = range.keys.begin; begin < range.keys.end; begin += few_chunk) {
        fold_chunk(range, {begin, std::min(begin + few_chunk, range.keys.end)});
      }
    }
  }

  static Index scratch_floats(Index head_dim, Index value_dim) {
    return few_rows * (round_up(head_dim, lanes) + few_stride + value_dim);
  }

 private:
  struct Row {
    Index position;
    Index at;
    Index kv_head;
    Slice visible;  ///< of the chunk
    Vector highest;
  };

  [[nodiscard]] Index q_stride() const { return round_up(k_.dim, lanes); }

  void load_rows(Slice rows) {
    count_ = 0;
    Index const group = item_.operands.q.heads / k_.heads;
    for (Index head = item_.heads.begin; head < item_.heads.end; ++head) {
      for (Index row = rows.begin; row < rows.end; ++row) {
        to_floats(type, item_.operands.q.at(item_.batch, row, head), k_.dim, q_ + count_ * q_stride());
        rows_[count_++] = {row, item_.origin + head * item_.state.rows + row, head / group, Slice{},
                           Vector{}};
      }
    }
  }

  /// All rows see a few keys before the next few: the keys of all heads lie side by side.
  void fold_chunk(KeyRange const& range, Slice keys) {
    for (Index i = 0; i < count_; ++i) {
      Index const position = rows_[i].position;
      rows_[i].visible = intersect(keys, {position + range.lo, position + range.hi + 1});
      rows_[i].highest = splat(-infinity);
    }
    for (Index first = keys.begin; first < keys.end; first += lanes) {
      for (Index i = 0; i < count_; ++i) {
        Vector const scores = score(i, intersect(rows_[i].visible, {first, first + lanes}), first);
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
    // Values of all heads for some keys, which stay near, before those for the next. The chunk is summed on
    // its own: over long sequences that is more exact than adding every few keys to O.
    __builtin_memset(sums_, 0, static_cast<std::size_t>(count_ * v_.dim) * sizeof(float));
    Index const near = std::clamp<Index>(near_bytes / (v_.row_stride * bytes), 16, few_chunk);
    for (Index first = keys.begin; first < keys.end; first += near) {
      for (Index i = 0; i < count_; ++i) {
        Slice const part = intersect(rows_[i].visible, {first, first + near});
        if (!part.empty()) add_values(i, part, scores_ + i * few_stride - keys.begin);
      }
    }
    for (Index i = 0; i < count_; ++i) {
      float* const o = item_.state.o + rows_[i].at * v_.dim;
      float const* const sums = sums_ + i * v_.dim;
      for (Index d = 0; d < v_.dim; ++d) o[d] = o[d] * kept[i] + sums[d];
    }
  }

  /// Row i's scores of keys [first, first + lanes), −inf where not visible: those keys are not read.
  Vector score(Index i, Slice visible, Index first) const {
    if (visible.empty()) return splat(-infinity);
    float const* const q = q_ + i * q_stride();
    auto const* k = static_cast<std::byte const*>(k_.at(item_.batch, first, rows_[i].kv_head));
    Vector sums[lanes];
    for (Index key = first; key < first + lanes; ++key, k += k_.row_stride * bytes) {
      sums[key - first] = visible.contains(key) ? dot(q, k) : Vector{};
    }
    auto const begin = static_cast<std::int32_t>(visible.begin - first);
    auto const end = static_cast<std::int32_t>(visible.end - first);
    IntVector const lane = numbered([](int number) { return number; });
    return (lane >= begin) & (lane < end) ? sums_of(sums) * scale_ : splat(-infinity);
  }

  Vector dot(float const* q, std::byte const* k) const {
    Index const ahead = few_ahead * k_.row_stride * bytes;
    Vector sum{};
    Index d = 0;
    for (; d + lanes <= k_.dim; d += lanes) {
      if (d * bytes % line == 0) __builtin_prefetch(k + ahead + d * bytes, 0, 2);
      sum += load_vector(q + d) * load_elements<type>(k + d * bytes);
    }
    if (d < k_.dim) sum += load_vector(q + d) * load_elements<type>(k + d * bytes, k_.dim - d);
    return sum;
  }

  /// Row i's sums += weights · V; weights are counted as the keys are.
  void add_values(Index i, Slice keys, float const* weights) const {
    Index const whole = round_down(v_.dim, lanes);
    Index d = 0;
    for (; d + 8 * lanes <= whole; d += 8 * lanes) add_columns<8>(i, keys, weights, d, lanes);
    for (; d + 4 * lanes <= whole; d += 4 * lanes) add_columns<4>(i, keys, weights, d, lanes);
    for (; d < whole; d += lanes) add_columns<1>(i, keys, weights, d, lanes);
    if (d < v_.dim) add_columns<1>(i, keys, weights, d, v_.dim - d);
  }

  /// The same for `vectors` vectors of columns from d on, the last of them `width` wide.
  template <Index vectors>
  void add_columns(Index i, Slice keys, float const* weights, Index d, Index width) const {
    Index const stride = v_.row_stride * bytes;
    auto const* v =
        static_cast<std::byte const*>(v_.at(item_.batch, keys.begin, rows_[i].kv_head)) + d * bytes;
    Vector sums[vectors] = {};
    for (Index key = keys.begin; key < keys.end; ++key, v += stride) {
      Vector const weight = splat(weights[key]);
#pragma GCC unroll 8
      for (Index j = 0; j < vectors; ++j) {
        if (j * lanes * bytes % line == 0) {
          __builtin_prefetch(v + few_ahead * stride + j * lanes * bytes, 0, 2);
        }
        Index const elements = j + 1 < vectors ? lanes : width;
        sums[j] += weight * load_elements<type>(v + j * lanes * bytes, elements);
      }
    }
    float* const total = sums_ + i * v_.dim + d;
#pragma GCC unroll 8
    for (Index j = 0; j < vectors; ++j) {
      Index const elements = j + 1 < vectors ? lanes : width;
      Vector const before = load_elements<DType::f32>(total + j * lanes, elements);
      store_elements(total + j * lanes, before + sums[j], elements);
    }
  }

  static constexpr Index bytes = static_cast<Index>(size_bytes(type));
  static constexpr Index line = 64;
  FoldItem const& item_;
  TensorView const& k_;
  TensorView const& v_;
  float scale_;
  float* q_;       ///< [few_rows][q_stride]
  float* scores_;  ///< [few_rows][few_stride], then weights
  float* sums_;    ///< [few_rows][value_dim], of a chunk's keys
  Index count_ = 0;
  Row rows_[few_rows];
};

std::size_t few_scratch_floats(Index head_dim, Index value_dim) {
  return static_cast<std::size_t>(FewFold<DType::f32>::scratch_floats(head_dim, value_dim));
}

void fold_few(FoldItem const& item) {
  with_dtype(item.operands.k.dtype, [&](auto type) { FewFold<type>(item).run(); });
}
