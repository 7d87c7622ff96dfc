// Vectors of `lanes` floats: one source, compiled once per instruction set. The includer has defined, in its
// own unnamed namespace: `Vector`, `lanes`, `splat`, `larger` (b if either is NaN), `power_of_two` (below)
// and `load_half` (lanes fp16 values as a Vector).

using IntVector __attribute__((vector_size(sizeof(Vector)))) = std::int32_t;
using HalfVector __attribute__((vector_size(sizeof(Vector) / 2))) = std::uint16_t;
// The same, at any address: words may be pairs of 16-bit elements.
using LooseVector __attribute__((vector_size(sizeof(Vector)), aligned(2), may_alias)) = float;
using LooseHalfVector __attribute__((vector_size(sizeof(Vector) / 2), aligned(2), may_alias)) = std::uint16_t;

constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr Index round_down(Index value, Index multiple) {
  return value / multiple * multiple;
}
constexpr Index round_up(Index value, Index multiple) {
  return round_down(value + multiple - 1, multiple);
}

inline Vector load_vector(float const* from) {
  return *reinterpret_cast<LooseVector const*>(from);
}
inline void store_vector(float* to, Vector value) {
  *reinterpret_cast<LooseVector*>(to) = value;
}

/// A vector whose lane i is number(i): a constant, so that shuffles by it are single instructions.
template <class Number>
inline IntVector numbered(Number number) {
  return [&]<int... lane>(std::integer_sequence<int, lane...>) {
    return IntVector{number(lane)...};
  }
  (std::make_integer_sequence<int, static_cast<int>(lanes)>{});
}

inline Vector added(Vector a, Vector b) {
  return a + b;
}

/// All lanes combined by halves: four steps for sixteen lanes.
template <Vector (*combine)(Vector, Vector), int distance = static_cast<int>(lanes) / 2>
inline float across(Vector value) {
  if constexpr (distance == 0) {
    return value[0];
  } else {
    IntVector const other = numbered([](int lane) { return lane ^ distance; });
    return across<combine, distance / 2>(combine(value, __builtin_shuffle(value, other)));
  }
}

/// 2^x for x ≤ 0 (or just above); 0 for −inf, NaN for NaN. Relative error below 1.5e−7, exact for integers:
/// a minimax polynomial p with p(0) = 1 for 2^(x − ⌊x⌋), then p · 2^⌊x⌋.
inline Vector exp2_negative(Vector x) {
  return power_of_two(x, [](Vector f) {
    Vector p = splat(1.86713005e-3f);
    p = p * f + 9.01703071e-3f;
    p = p * f + 5.57999127e-2f;
    p = p * f + 2.40164444e-1f;
    p = p * f + 6.93151295e-1f;
    return p * f + 1.0f;
  });
}

/// `count` (≤ lanes) elements as fp32, the rest zero; reads no element beyond them.
template <DType type>
inline Vector load_elements(void const* from, Index count = lanes) {
  if constexpr (type == DType::f32) {
    if (count == lanes) return load_vector(static_cast<float const*>(from));
    float part[lanes] = {};
    __builtin_memcpy(part, from, static_cast<std::size_t>(count) * sizeof part[0]);
    return load_vector(part);
  } else {
    auto const* bits = static_cast<std::uint16_t const*>(from);
    std::uint16_t part[lanes];
    if (count != lanes) {
      __builtin_memset(part, 0, sizeof part);
      __builtin_memcpy(part, from, static_cast<std::size_t>(count) * sizeof part[0]);
      bits = part;
    }
    if constexpr (type == DType::f16) {
      return load_half(bits);
    } else {
      HalfVector const narrow = *reinterpret_cast<LooseHalfVector const*>(bits);
      return reinterpret_cast<Vector>(__builtin_convertvector(narrow, IntVector) << 16);
    }
  }
}

inline void store_elements(float* to, Vector value, Index count) {
  if (count == lanes) return store_vector(to, value);
  __builtin_memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(float));
}

/// Calls use(std::integral_constant<DType, type>).
template <class Use>
inline void with_dtype(DType type, Use&& use) {
  switch (type) {
    case DType::f32:
      return use(std::integral_constant<DType, DType::f32>{});
    case DType::f16:
      return use(std::integral_constant<DType, DType::f16>{});
    case DType::bf16:
      return use(std::integral_constant<DType, DType::bf16>{});
  }
}

/// A row of elements as fp32, up to a whole vector; zeros after the last.
inline void to_floats(DType type, void const* from, Index count, float* to) {
  with_dtype(type, [&](auto constant) {
    constexpr DType dtype = constant;
    auto const* const bytes = static_cast<std::byte const*>(from);
    Index i = 0;
    for (; i + lanes <= count; i += lanes) {
      store_vector(to + i, load_elements<dtype>(bytes + i * static_cast<Index>(size_bytes(dtype))));
    }
    if (i < count) {
      store_vector(to + i,
                   load_elements<dtype>(bytes + i * static_cast<Index>(size_bytes(dtype)), count - i));
    }
  });
}

/// Scores of one row become weights 2^(s − m); m and l are brought to the new reference.
/// @param highest  holds the scores' maximum in some lane
/// @param store    keeps the weights of `lanes` columns from `column` on
/// @returns what the row's O has to be multiplied with
template <class Store>
inline float soften(float const* scores, Slice columns, Vector highest, float& m, float& l, Store&& store) {
  float const before = m;
  float const reference = std::max(before, across<larger>(highest));
  Vector sum{};
  Vector const shift = splat(reference == -infinity ? 0.0f : reference);  // no −inf − (−inf)
  for (Index column = columns.begin; column < columns.end; column += lanes) {
    Vector const weight = exp2_negative(load_vector(scores + column) - shift);
    sum += weight;
    store(column, weight);
  }
  float const kept = reference == before   ? 1.0f
                     : before == -infinity ? 0.0f
                                           : exp2_negative(splat(before - reference))[0];
  l = l * kept + across<added>(sum);
  // A row whose scores were NaN is not the identity: its weights refer to 0.
  m = reference == -infinity && l != 0.0f ? 0.0f : reference;
  return kept;
}
