// A small problem and a simple machine, whose times can be told by hand.
#pragma once

#include "plait/machine.hpp"
#include "plait/problem.hpp"

namespace plait::test {

inline constexpr Index tokens = 4000;
inline constexpr int ranks = 4;

inline Problem full_problem() {
  Shape const shape{.q_tokens = tokens,
                    .kv_tokens = tokens,
                    .q_heads = 1,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .value_dim = 32,
                    .dtype = DType::f32};
  return {.shape = shape, .mask = Mask::full(tokens, tokens), .scale = 1.0};
}

/// One level of equal links, and memory that costs nothing.
inline Machine flat_machine(double flops_per_second, double bytes_per_second, double latency_seconds) {
  Link const link{.latency_seconds = latency_seconds, .bytes_per_second = bytes_per_second};
  return {.flops_per_second = flops_per_second,
          .memory_bytes_per_second = 1e15,
          .key_bytes_per_second = 1e15,
          .node = link,
          .network = link};
}

}  // namespace plait::test
