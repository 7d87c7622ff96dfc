// The fold of a few rows, as in decoding: each key is used too few times to be worth packing, and memory is
// the bound. Keys and values are read once, where they lie, in chunks; several rows use a group of keys while
// it is in the nearest cache. Needs what vector.inl needs.

constexpr Index few_rows = 4;
constexpr Index few_chunk = 128;  // keys whose scores are kept
constexpr Index few_stride = 512 + 16;
constexpr Index few_ahead = 8;  // rows of keys or values to ask for before they are needed

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
        q_rows_(item.scratch),
        o_rows_(q_rows_ + few_rows * few_stride),
        scores_(o_rows_ + few_rows * few_stride) {}

  void run() {
    Slice const ranges = ranges_of(item_, item_.tiles.begin);
    for (Index i = ranges.begin; i < ranges.end; ++i) {
      KeyRange const range = range_at(item_, i);
      load_rows(range.rows);
      for (Index begin = range.keys.begin; begin < range.keys.end; begin += few_chunk) {
        fold_chunk(range, {begin, std::min(begin + few_chunk, range.keys.end)});
      }
      store_rows();
    }
  }

 private:
  struct Row {
    Index position;
    Index at;
    float kept;
    Slice visible;
  };

  void load_rows(Slice rows) {
    count_ = 0;
    Index const dim = item_.state.value_dim;
    for (Index head = item_.heads.begin; head < item_.heads.end; ++head) {
      for (Index row = rows.begin; row < rows.end; ++row) {
        Index const at = item_.origin + head * item_.state.rows + row;
        to_floats(type, item_.operands.q.at(item_.batch, row, head), k_.dim, q_rows_ + count_ * few_stride);
        to_floats(DType::f32, item_.state.o + at * dim, dim, o_rows_ + count_ * few_stride);
        rows_[count_++] = {row, at, 1.0f, {}};
      }
    }
  }

  void store_rows() const {
    Index const dim = item_.state.value_dim;
    for (Index i = 0; i < count_; ++i) {
      __builtin_memcpy(item_.state.o + rows_[i].at * dim, o_rows_ + i * few_stride,
                       static_cast<std::size_t>(dim) * sizeof(float));
    }
  }

  void fold_chunk(KeyRange const& range, Slice keys) {
    Vector highest[few_rows];
    for (Index i = 0; i < count_; ++i) {
      Index const position = rows_[i].position;
      rows_[i].visible = intersect(keys, {position + range.lo, position + range.hi + 1});
      highest[i] = splat(-infinity);
    }
    for (Index first = keys.begin; first < keys.end; first += lanes) {
      for (Index i = 0; i < count_; ++i) {
        Slice const visible = intersect(rows_[i].visible, {first, first + lanes});
        Vector const scores = score(q_rows_ + i * few_stride, visible, first);
        store_vector(scores_ + i * few_stride + (first - keys.begin), scores);
        highest[i] = larger(scores, highest[i]);
      }
    }
    Slice const columns{0, round_up(keys.size(), lanes)};
    for (Index i = 0; i < count_; ++i) {
      float* const row = scores_ + i * few_stride;
      rows_[i].kept = soften(row, columns, highest[i], item_.state.m[rows_[i].at], item_.state.l[rows_[i].at],
                             [&](Index column, Vector weight) { store_vector(row + column, weight); });
    }
    for (Index i = 0; i < count_; ++i) add_values(i, keys.begin);
  }

  /// The scores of keys [first, first + lanes), −inf where not visible: those keys are not read.
  Vector score(float const* q, Slice visible, Index first) const {
    if (visible.empty()) return splat(-infinity);
    Vector sums[lanes];
    for (Index key = first; key < first + lanes; ++key) {
      sums[key - first] = visible.contains(key) ? dot(q, key) : Vector{};
    }
    auto const begin = static_cast<std::int32_t>(visible.begin - first);
    auto const end = static_cast<std::int32_t>(visible.end - first);
    IntVector const lane = numbered([](int number) { return number; });
    return (lane >= begin) & (lane < end) ? sums_of(sums) * scale_ : splat(-infinity);
  }

  Vector dot(float const* q, Index key) const {
    auto const* const k = static_cast<std::byte const*>(k_.at(item_.batch, key, item_.kv_head));
    auto const* const ahead = k + few_ahead * k_.row_stride * bytes;
    Vector sum{};
    Index d = 0;
    for (; d + lanes <= k_.dim; d += lanes) {
      __builtin_prefetch(ahead + d * bytes);
      sum += load_vector(q + d) * load_elements<type>(k + d * bytes);
    }
    if (d < k_.dim) sum += load_vector(q + d) * load_elements<type>(k + d * bytes, k_.dim - d);
    return sum;
  }

  /// O += weights · V for one row; the chunk begins at key `first`.
  void add_values(Index i, Index first) const {
    constexpr Index wide = 8;  // accumulators of one pass over the keys
    Index const whole = round_down(v_.dim, lanes);
    Index d = 0;
    for (; d + wide * lanes <= whole; d += wide * lanes) add_columns<wide>(i, first, d, lanes);
    for (; d < whole; d += lanes) add_columns<1>(i, first, d, lanes);
    if (d < v_.dim) add_columns<1>(i, first, d, v_.dim - d);
  }

  /// The same for `vectors` vectors of columns from d on, the last of them `width` wide.
  template <Index vectors>
  void add_columns(Index i, Index first, Index d, Index width) const {
    Row const& row = rows_[i];
    float* const o = o_rows_ + i * few_stride + d;
    float const* const weights = scores_ + i * few_stride;
    Vector sums[vectors];
#pragma GCC unroll 8
    for (Index j = 0; j < vectors; ++j) sums[j] = Vector{};
    for (Index key = row.visible.begin; key < row.visible.end; ++key) {
      auto const* const v = static_cast<std::byte const*>(v_.at(item_.batch, key, item_.kv_head)) + d * bytes;
      Vector const weight = splat(weights[key - first]);
#pragma GCC unroll 8
      for (Index j = 0; j < vectors; ++j) {
        __builtin_prefetch(v + few_ahead * v_.row_stride * bytes + j * lanes * bytes);
        Index const elements = j + 1 < vectors ? lanes : width;
        sums[j] += weight * load_elements<type>(v + j * lanes * bytes, elements);
      }
    }
#pragma GCC unroll 8
    for (Index j = 0; j < vectors; ++j) {
      store_vector(o + j * lanes, load_vector(o + j * lanes) * row.kept + sums[j]);
    }
  }

  static constexpr Index bytes = static_cast<Index>(size_bytes(type));
  FoldItem const& item_;
  TensorView const& k_;
  TensorView const& v_;
  float scale_;
  float* q_rows_;  ///< [few_rows], as are the next two; few_stride floats apart
  float* o_rows_;
  float* scores_;
  Index count_ = 0;
  Row rows_[few_rows];
};

void fold_few(FoldItem const& item) {
  with_dtype(item.operands.k.dtype, [&](auto type) { FewFold<type>(item).run(); });
}
