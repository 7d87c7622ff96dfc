// Rows of elements as fp32, two vectors at a time. Two neighbours of bf16 in a 32-bit word become fp32 by one
// instruction each, but then the even elements are one vector and the odd ones the other: the order of pairs.
// Products and sums may be made in any order; in_order() brings what comes of them back.

struct Pair {
  Vector first;
  Vector second;
};

/// 2 · lanes elements.
template <DType type>
inline Pair load_pair(std::byte const* from) {
  if constexpr (type == DType::bf16) {
    auto const words = reinterpret_cast<IntVector>(load_vector(reinterpret_cast<float const*>(from)));
    return {reinterpret_cast<Vector>(words << 16), reinterpret_cast<Vector>(words & ~0xffff)};
  } else {
    return {load_elements<type>(from),
            load_elements<type>(from + lanes * static_cast<Index>(size_bytes(type)))};
  }
}

template <DType type>
inline Pair in_order(Pair pair) {
  if constexpr (type == DType::bf16) {
    constexpr int second = static_cast<int>(lanes);  // the first lane of a shuffle's second operand
    IntVector const low = numbered([](int i) { return i / 2 + i % 2 * second; });
    IntVector const high = numbered([](int i) { return second / 2 + i / 2 + i % 2 * second; });
    return {__builtin_shuffle(pair.first, pair.second, low),
            __builtin_shuffle(pair.first, pair.second, high)};
  } else {
    return pair;
  }
}

/// Calls pair(first element) for 2 · lanes elements each, then rest(first element, count) for up to `lanes`
/// each.
template <class ForPair, class ForRest>
inline void for_elements(Index count, ForPair&& pair, ForRest&& rest) {
  Index at = 0;
  for (; at + 2 * lanes <= count; at += 2 * lanes) pair(at);
  for (; at < count; at += lanes) rest(at, std::min(lanes, count - at));
}
