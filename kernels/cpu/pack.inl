// Keys and values of one key block as the micro-kernel reads them: 32-bit words in panels of `panel` columns.
// A word is an fp32, or (word_elements = 2) two bf16 that lie next to each other along the product's depth.

/// The raw words of a row, with zeros up to a whole vector of them.
inline void to_words(DType type, void const* from, Index count, float* to) {
  if constexpr (word_elements == 1) {
    to_floats(type, from, count, to);
  } else {
    auto const* const bytes = static_cast<std::byte const*>(from);
    Index const whole = round_down(count / 2, lanes);
    for (Index i = 0; i < whole; i += lanes) __builtin_memcpy(to + i, bytes + i * word_bytes, sizeof(Vector));
    if (2 * whole == count) return;
    store_vector(to + whole, Vector{});
    __builtin_memcpy(to + whole, bytes + whole * word_bytes,
                     static_cast<std::size_t>(count - 2 * whole) * sizeof(std::uint16_t));
  }
}

/// `lanes` rows of `lanes` floats become columns: exchanges the off-diagonal quarters of ever larger blocks.
template <int distance = 1>
inline void transpose(Vector (&rows)[lanes]) {
  constexpr int second = static_cast<int>(lanes);  // the first lane of a shuffle's second operand
  IntVector const low = numbered([](int i) { return (i & distance) != 0 ? second + i - distance : i; });
  IntVector const high = numbered([](int i) { return (i & distance) != 0 ? second + i : i + distance; });
#pragma GCC unroll 16
  for (int i = 0; i < static_cast<int>(lanes); ++i) {
    if ((i & distance) != 0) continue;
    Vector const a = rows[i];
    Vector const b = rows[i + distance];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + distance] = __builtin_shuffle(a, b, high);
  }
  if constexpr (2 * distance < static_cast<int>(lanes)) transpose<2 * distance>(rows);
}

/// Which keys of a block some row sees: the others are packed as zeros, unread.
struct SeenKeys {
  Slice span;  ///< from the first such key to the last, counted from the block's first; packed in whole steps
  bool seen[largest_block];

  void add(Slice keys) {
    if (span.empty()) {
      span = keys;
      __builtin_memset(seen, 0, sizeof seen);
    }
    span = {std::min(span.begin, keys.begin), std::max(span.end, keys.end)};
    __builtin_memset(seen + keys.begin, 1, static_cast<std::size_t>(keys.size()));
  }
};

/// Keys as columns: [key / panel][word of the head dimension][panel].
/// @param depth  words of the head dimension, and zeros up to a multiple of depth_step
/// @param words  the same in whole vectors
/// @param rows   scratch for `lanes` rows of `words` words
inline void pack_keys(TensorView const& k, Index batch, Index head, Index first, SeenKeys const& keys,
                      Index depth, Index words, float* rows, float* packed) {
  for (Index key = keys.span.begin; key < keys.span.end; key += lanes) {
    for (Index i = 0; i < lanes; ++i) {
      float* const row = rows + i * words;
      if (keys.seen[key + i]) {
        to_words(k.dtype, k.at(batch, first + key + i, head), k.dim, row);
      } else {
        __builtin_memset(row, 0, static_cast<std::size_t>(words) * sizeof(float));
      }
    }
    float* const column = packed + key / panel * depth * panel + key % panel;
    for (Index d = 0; d < depth; d += lanes) {
      Vector block[lanes];
#pragma GCC unroll 16
      for (Index i = 0; i < lanes; ++i) block[i] = load_vector(rows + i * words + d);
      transpose(block);
      Index const count = std::min(lanes, depth - d);
#pragma GCC unroll 16
      for (Index i = 0; i < lanes; ++i) {
        if (i < count) store_vector(column + (d + i) * panel, block[i]);
      }
    }
  }
}

/// Values as they are: [column / panel][word of keys, block_words of them][panel].
/// @param rows  scratch for `word_elements` rows of `columns` floats
inline void pack_values(TensorView const& v, Index batch, Index head, Index first, SeenKeys const& keys,
                        Index block_words, Index columns, float* rows, float* packed) {
  for (Index word = keys.span.begin / word_elements; word * word_elements < keys.span.end; ++word) {
    for (Index i = 0; i < word_elements; ++i) {
      Index const key = word * word_elements + i;
      float* const row = rows + i * columns;
      if (keys.seen[key]) {
        to_words(v.dtype, v.at(batch, first + key, head), v.dim, row);
      } else {
        __builtin_memset(row, 0, static_cast<std::size_t>(columns) * sizeof(float));
      }
    }
    for (Index column = 0; column < columns; column += lanes) {
      float* const target = packed + (column / panel * block_words + word) * panel + column % panel;
      if constexpr (word_elements == 1) {
        store_vector(target, load_vector(rows + column));
      } else {
        auto const element = [&](Index row) {
          auto const* const narrow = reinterpret_cast<std::uint16_t const*>(rows + row * columns) + column;
          return __builtin_convertvector(*reinterpret_cast<LooseHalfVector const*>(narrow), IntVector);
        };
        store_vector(target, reinterpret_cast<Vector>(element(0) | (element(1) << 16)));
      }
    }
  }
}
