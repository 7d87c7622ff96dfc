// Problems that plans are written for, of the proportions of a small Llama.
#pragma once

#include <utility>

#include "plait/mask.hpp"
#include "plait/problem.hpp"

namespace plait::test {

inline Problem problem_of(Shape const& shape, Mask mask) {
  return {.shape = shape, .mask = std::move(mask), .scale = default_scale(shape)};
}

inline Shape llama_like(Index tokens) {
  return {.batch = 1,
          .q_tokens = tokens,
          .kv_tokens = tokens,
          .q_heads = 8,
          .kv_heads = 2,
          .head_dim = 64,
          .value_dim = 64,
          .dtype = DType::bf16};
}

}  // namespace plait::test
