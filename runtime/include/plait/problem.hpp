// One attention: its shape, mask and scale.
#pragma once

#include "plait/dtype.hpp"
#include "plait/mask.hpp"

namespace plait {

/// Global shape: q [batch, q_tokens, q_heads, head_dim], k [batch, kv_tokens, kv_heads, head_dim],
/// v [batch, kv_tokens, kv_heads, value_dim], all of one dtype; out like q but value_dim wide.
struct Shape {
  Index batch = 1;
  Index q_tokens = 0;
  Index kv_tokens = 0;
  Index q_heads = 1;
  Index kv_heads = 1;
  Index head_dim = 64;
  Index value_dim = 64;
  DType dtype = DType::f32;

  [[nodiscard]] Index group() const { return q_heads / kv_heads; }  ///< query heads per key/value head
  friend bool operator==(Shape const&, Shape const&) = default;
};

/// Largest head_dim and value_dim that any device takes.
inline constexpr Index max_head_dim = 512;

struct Problem {
  Shape shape;
  Mask mask;
  double scale = 1.0;  ///< multiplies q·k before the softmax

  /// 4 · area · q_heads · (head_dim + value_dim) / 2 · batch: two products, a multiply and an add each.
  [[nodiscard]] double flops() const;
};

/// 1/√head_dim.
[[nodiscard]] double default_scale(Shape const& shape);

/// @throws InvalidProblem naming the first thing that is wrong (heads that do not divide, dimensions out of
/// range, a mask of other token counts, a scale that is not finite)
void validate(Problem const& problem);

}  // namespace plait
