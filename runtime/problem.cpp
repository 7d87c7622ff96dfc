#include "plait/problem.hpp"

#include <fmt/format.h>

#include <cmath>

namespace plait {

double Problem::flops() const {
  return 2.0 * static_cast<double>(mask.area()) * static_cast<double>(shape.batch * shape.q_heads) *
         static_cast<double>(shape.head_dim + shape.value_dim);
}

double default_scale(Shape const& shape) {
  return 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
}

void validate(Problem const& problem) {
  Shape const& shape = problem.shape;
  auto const require = []<class... Values>(bool holds, std::string_view message, Values... values) {
    if (!holds) throw InvalidProblem(fmt::vformat(message, fmt::make_format_args(values...)));
  };
  require(shape.batch >= 1, "batch {}: must be at least 1", shape.batch);
  require(shape.q_tokens >= 0, "query tokens {}: must not be negative", shape.q_tokens);
  require(shape.kv_tokens >= 0, "key tokens {}: must not be negative", shape.kv_tokens);
  require(shape.kv_heads >= 1, "key/value heads {}: must be at least 1", shape.kv_heads);
  require(shape.q_heads >= 1 && shape.q_heads % shape.kv_heads == 0,
          "{} query heads over {} key/value heads: the first must be a multiple of the second", shape.q_heads,
          shape.kv_heads);
  require(shape.head_dim >= 1 && shape.head_dim <= max_head_dim, "head dimension {}: must be 1 to {}",
          shape.head_dim, max_head_dim);
  require(shape.value_dim >= 1 && shape.value_dim <= max_head_dim, "value dimension {}: must be 1 to {}",
          shape.value_dim, max_head_dim);
  require(problem.mask.q_tokens() == shape.q_tokens && problem.mask.kv_tokens() == shape.kv_tokens,
          "the mask is for {} × {} tokens, the tensors have {} × {}", problem.mask.q_tokens(),
          problem.mask.kv_tokens(), shape.q_tokens, shape.kv_tokens);
  require(std::isfinite(problem.scale), "scale {}: must be finite", problem.scale);
}

}  // namespace plait
