// The blocked flash tile over vectors of `lanes` floats: one source, compiled once per instruction set. The
// includer has defined, in its own unnamed namespace, `lanes` and `load_half(uint16_t const*)` (lanes fp16
// values as a Vector).
//
// Scores are scaled by scale · log2(e) as they leave the registers: once rounded. Per block of keys, K is
// packed transposed and V as it is, both as fp32 panels of `panel` columns, for all query heads of the group.
// Both products run in one micro-kernel: a block of `block_rows` rows by one panel in registers.

using Vector __attribute__((vector_size(lanes * sizeof(float)))) = float;
using IntVector __attribute__((vector_size(lanes * sizeof(float)))) = std::int32_t;
// The same, at any address.
using LooseVector __attribute__((vector_size(lanes * sizeof(float)), aligned(4))) = float;

// 6 × 4 accumulators of 32 registers, or 6 × 2 of 16: head dimensions of 64 and 128 are whole panels.
constexpr Index block_rows = 6;
constexpr Index panel_vectors = lanes == 16 ? 4 : 2;
constexpr Index panel = panel_vectors * lanes;
constexpr Index key_block = 256;  // K and V of a block, packed, stay in L2
static_assert(key_block % panel == 0 && tile_rows % block_rows == 0);
constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr Index round_up(Index value, Index multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline Vector splat(float value) {
  return Vector{} + value;
}
inline Vector load_vector(float const* from) {
  return *reinterpret_cast<LooseVector const*>(from);
}
inline void store_vector(float* to, Vector value) {
  *reinterpret_cast<LooseVector*>(to) = value;
}

inline Vector larger(Vector a, Vector b) {
  return a > b ? a : b;
}
inline Vector added(Vector a, Vector b) {
  return a + b;
}

/// All lanes combined by halves: four steps for sixteen lanes.
template <Vector (*combine)(Vector, Vector)>
inline float across(Vector value) {
  IntVector lane;
  for (int i = 0; i < static_cast<int>(lanes); ++i) lane[i] = i;
#pragma GCC unroll 4
  for (int distance = static_cast<int>(lanes) / 2; distance > 0; distance /= 2) {
    value = combine(value, __builtin_shuffle(value, lane ^ distance));
  }
  return value[0];
}

/// 2^x for x ≤ 0, to about one unit in the last place; 0 below 2^−126, NaN for NaN.
inline Vector exp2_negative(Vector x) {
  constexpr float round_magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  Vector const lowest = splat(-126.0f);
  Vector const clamped = x < lowest ? lowest : x;  // a NaN passes
  Vector const rounded = (clamped + round_magic) - round_magic;
  Vector const f = clamped - rounded;  // in [−0.5, 0.5]
  // Taylor coefficients (ln 2)^k / k!; the remainder after f^7 is below 6e−9.
  Vector p = splat(1.52527338e-5f);
  p = p * f + 1.54035304e-4f;
  p = p * f + 1.33335581e-3f;
  p = p * f + 9.61812911e-3f;
  p = p * f + 5.55041087e-2f;
  p = p * f + 2.40226507e-1f;
  p = p * f + 6.93147181e-1f;
  p = p * f + 1.0f;
  auto const exponent = __builtin_convertvector(rounded, IntVector);
  auto const bits = reinterpret_cast<IntVector>(p) + (exponent << 23);
  return x < lowest ? Vector{} : reinterpret_cast<Vector>(bits);
}

/// C[block_rows][panel] = (C or 0) + A · B: A is [block_rows][depth] with stride `a_stride`, B is
/// [depth][panel].
enum class Into : std::uint8_t { sum, product };
template <Into into>
inline void multiply(float const* __restrict a, Index a_stride, float const* __restrict b, Index depth,
                     float* __restrict c, Index c_stride, float factor = 1.0f) {
  Vector sums[block_rows][panel_vectors];
#pragma GCC unroll 6
  for (Index i = 0; i < block_rows; ++i) {
#pragma GCC unroll 4
    for (Index j = 0; j < panel_vectors; ++j) {
      sums[i][j] = into == Into::sum ? load_vector(c + i * c_stride + j * lanes) : Vector{};
    }
  }
  for (Index d = 0; d < depth; ++d) {
    Vector columns[panel_vectors];
#pragma GCC unroll 4
    for (Index j = 0; j < panel_vectors; ++j) columns[j] = load_vector(b + d * panel + j * lanes);
#pragma GCC unroll 6
    for (Index i = 0; i < block_rows; ++i) {
      Vector const value = splat(a[i * a_stride + d]);
#pragma GCC unroll 4
      for (Index j = 0; j < panel_vectors; ++j) sums[i][j] += value * columns[j];
    }
  }
#pragma GCC unroll 6
  for (Index i = 0; i < block_rows; ++i) {
#pragma GCC unroll 4
    for (Index j = 0; j < panel_vectors; ++j) {
      store_vector(c + i * c_stride + j * lanes, into == Into::sum ? sums[i][j] : sums[i][j] * factor);
    }
  }
}

/// `count` elements as fp32; reads no element beyond them.
inline void to_floats(DType type, void const* from, Index count, float* to) {
  Index i = 0;
  switch (type) {
    case DType::f32:
      __builtin_memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case DType::bf16: {
      auto const* const bits = static_cast<std::uint16_t const*>(from);
      for (; i < count; ++i) {
        std::uint32_t const wide = static_cast<std::uint32_t>(bits[i]) << 16;
        __builtin_memcpy(to + i, &wide, sizeof wide);
      }
      return;
    }
    case DType::f16: {
      auto const* const bits = static_cast<std::uint16_t const*>(from);
      for (; i + lanes <= count; i += lanes) store_vector(to + i, load_half(bits + i));
      if (i == count) return;
      std::uint16_t rest[lanes] = {};
      __builtin_memcpy(rest, bits + i, static_cast<std::size_t>(count - i) * sizeof rest[0]);
      Vector const last = load_half(rest);
      __builtin_memcpy(to + i, &last, static_cast<std::size_t>(count - i) * sizeof(float));
      return;
    }
  }
}

/// One thread's scratch. All parts are multiples of 16 floats, so each is aligned to 64 bytes.
struct Scratch {
  Scratch(float* memory, Index head_dim_in, Index value_dim)
      : head_dim(head_dim_in), value_columns(round_up(value_dim, panel)) {
    auto const take = [&](Index floats) {
      float* const part = memory;
      memory += round_up(floats, 16);
      total += round_up(floats, 16);
      return part;
    };
    q = take(tile_rows * head_dim);
    o = take(tile_rows * value_columns);
    k = take(key_block * head_dim);
    v = take(key_block * value_columns);
    scores = take(block_rows * key_block);
    row = take(std::max(head_dim, value_columns));
  }

  Index head_dim;
  Index value_columns;
  float* q;       ///< [tile_rows][head_dim]
  float* o;       ///< [tile_rows][value_columns]
  float* k;       ///< [key_block / panel][head_dim][panel]
  float* v;       ///< [value_columns / panel][key_block][panel]
  float* scores;  ///< [block_rows][key_block]
  float* row;     ///< one row on its way into a panel
  Index total = 0;
};

/// The fold of one tile for one key/value head.
class TileFold {
 public:
  explicit TileFold(FoldItem const& item)
      : item_(item),
        operands_(item.operands),
        scratch_(item.scratch, item.operands.q.dim, item.operands.v.dim),
        scale_(item.operands.scale * 1.44269504f) {}

  void run() {
    Index const group = operands_.q.heads / operands_.k.heads;
    for (Index i = item_.tile.first; i < item_.tile.last; ++i) {
      KeyRange const& range = item_.list.ranges[static_cast<std::size_t>(i)];
      for (Index begin = range.keys.begin; begin < range.keys.end; begin += key_block) {
        Slice const keys{begin, std::min(begin + key_block, range.keys.end)};
        pack_keys(keys);
        pack_values(keys);
        for (Index g = 0; g < group; ++g) fold_block(item_.kv_head * group + g, range, keys);
      }
    }
  }

 private:
  /// Keys as columns; keys after the last are zero.
  void pack_keys(Slice keys) const {
    Index const dim = scratch_.head_dim;
    Index const count = keys.size();
    for (Index key = 0; key < round_up(count, panel); ++key) {
      float* const column = scratch_.k + key / panel * dim * panel + key % panel;
      if (key < count) {
        to_floats(operands_.k.dtype, operands_.k.at(item_.batch, keys.begin + key, item_.kv_head), dim,
                  scratch_.row);
        for (Index d = 0; d < dim; ++d) column[d * panel] = scratch_.row[d];
      } else {
        for (Index d = 0; d < dim; ++d) column[d * panel] = 0.0f;
      }
    }
  }

  /// Value rows cut into panels; rows after the last key and columns after the last are zero.
  void pack_values(Slice keys) const {
    Index const dim = operands_.v.dim;
    Index const count = keys.size();
    for (Index d = dim; d < scratch_.value_columns; ++d) scratch_.row[d] = 0.0f;
    for (Index key = 0; key < round_up(count, panel); ++key) {
      if (key < count) {
        to_floats(operands_.v.dtype, operands_.v.at(item_.batch, keys.begin + key, item_.kv_head), dim,
                  scratch_.row);
      } else {
        for (Index d = 0; d < dim; ++d) scratch_.row[d] = 0.0f;
      }
      for (Index column = 0; column < scratch_.value_columns; column += panel) {
        float* const target = scratch_.v + (column * key_block + key * panel);
        __builtin_memcpy(target, scratch_.row + column, panel * sizeof(float));
      }
    }
  }

  /// Folds the packed keys into the range's rows of one query head.
  void fold_block(Index head, KeyRange const& range, Slice keys) const {
    StateView const& state = operands_.state;
    Index const rows = range.rows.size();
    Index const first = (item_.batch * state.heads + head) * state.rows + range.rows.begin;
    float* const m = state.m + first;
    float* const l = state.l + first;
    float* const o = state.o + first * state.value_dim;
    load_queries(head, range.rows);
    for (Index row = 0; row < rows; ++row) {
      __builtin_memcpy(scratch_.o + row * scratch_.value_columns, o + row * state.value_dim,
                       static_cast<std::size_t>(state.value_dim) * sizeof(float));
    }
    for (Index row = 0; row < rows; row += block_rows) {
      fold_rows(range, keys, {row, std::min(row + block_rows, rows)}, m, l);
    }
    for (Index row = 0; row < rows; ++row) {
      __builtin_memcpy(o + row * state.value_dim, scratch_.o + row * scratch_.value_columns,
                       static_cast<std::size_t>(state.value_dim) * sizeof(float));
    }
  }

  /// The range's queries; rows up to the next whole block are zero.
  void load_queries(Index head, Slice rows) const {
    Index const dim = scratch_.head_dim;
    for (Index row = 0; row < round_up(rows.size(), block_rows); ++row) {
      float* const target = scratch_.q + row * dim;
      if (row < rows.size()) {
        to_floats(operands_.q.dtype, operands_.q.at(item_.batch, rows.begin + row, head), dim, target);
      } else {
        for (Index d = 0; d < dim; ++d) target[d] = 0.0f;
      }
    }
  }

  /// One block of rows, counted from the range's first.
  void fold_rows(KeyRange const& range, Slice keys, Slice rows, float* m, float* l) const {
    Slice const positions{range.rows.begin + rows.begin, range.rows.begin + rows.end};
    // The keys that some row of the block sees, counted from the first packed key, in whole panels.
    Slice const seen = intersect(keys, {positions.begin + range.lo, positions.end + range.hi});
    if (seen.empty()) return;
    Slice const columns{(seen.begin - keys.begin) / panel * panel, round_up(seen.end - keys.begin, panel)};
    float const* const q = scratch_.q + rows.begin * scratch_.head_dim;
    for (Index column = columns.begin; column < columns.end; column += panel) {
      multiply<Into::product>(q, scratch_.head_dim, scratch_.k + column * scratch_.head_dim,
                              scratch_.head_dim, scratch_.scores + column, key_block, scale_);
    }
    for (Index i = 0; i < block_rows; ++i) {
      float* const scores = scratch_.scores + i * key_block;
      if (i >= rows.size()) {
        for (Index column = columns.begin; column < columns.end; ++column) scores[column] = 0.0f;
        continue;
      }
      Index const position = positions.begin + i;
      Slice const visible = intersect(keys, {position + range.lo, position + range.hi + 1});
      mask_row(scores, columns, {visible.begin - keys.begin, visible.end - keys.begin}, visible.empty());
      soften_row(scores, columns, m[rows.begin + i], l[rows.begin + i],
                 scratch_.o + (rows.begin + i) * scratch_.value_columns);
    }
    for (Index column = 0; column < scratch_.value_columns; column += panel) {
      multiply<Into::sum>(scratch_.scores + columns.begin, key_block,
                          scratch_.v + column * key_block + columns.begin * panel, columns.size(),
                          scratch_.o + rows.begin * scratch_.value_columns + column, scratch_.value_columns);
    }
  }

  static void mask_row(float* scores, Slice columns, Slice visible, bool sees_nothing) {
    if (sees_nothing) visible = {columns.begin, columns.begin};
    for (Index column = columns.begin; column < visible.begin; ++column) scores[column] = -infinity;
    for (Index column = visible.end; column < columns.end; ++column) scores[column] = -infinity;
  }

  /// Scores become weights 2^(s − m), after m, l and O are brought to the new reference.
  void soften_row(float* scores, Slice columns, float& m, float& l, float* o) const {
    Vector highest = splat(-infinity);
    for (Index column = columns.begin; column < columns.end; column += lanes) {
      highest = larger(load_vector(scores + column), highest);
    }
    float reference = m;
    reference = std::max(reference, across<larger>(highest));
    Vector sum{};
    bool const sees = reference != -infinity;
    Vector const shift = splat(sees ? reference : 0.0f);  // no −inf − (−inf): weights of −inf are 0
    for (Index column = columns.begin; column < columns.end; column += lanes) {
      Vector const weight = exp2_negative(load_vector(scores + column) - shift);
      store_vector(scores + column, weight);
      sum += weight;
    }
    if (reference > m) {
      float const kept = m == -infinity ? 0.0f : exp2_negative(splat(m - reference))[0];
      l *= kept;
      for (Index d = 0; d < scratch_.value_columns; d += lanes)
        store_vector(o + d, load_vector(o + d) * kept);
      m = reference;
    }
    l += across<added>(sum);
  }

  FoldItem const& item_;
  FoldOperands const& operands_;
  Scratch scratch_;
  float scale_;
};

FoldPath const path{.fold = [](FoldItem const& item) { TileFold(item).run(); },
                    .scratch_floats =
                        [](Index head_dim, Index value_dim) {
                          return static_cast<std::size_t>(Scratch(nullptr, head_dim, value_dim).total);
                        }};
