// A small problem and a simple machine, whose times can be told by hand.
#pragma once

#include <utility>

#include "plait/machine.hpp"
#include "plait/plan_builder.hpp"
#include "plait/problem.hpp"
#include "plait/simulate.hpp"
#include "plait/strategy.hpp"

namespace plait::test {

inline constexpr Index tokens = 4000;
inline constexpr int ranks = 4;

/// One head over so many tokens, which all see each other.
inline Problem one_head(Index n, Index dim) {
  Shape const shape{.q_tokens = n,
                    .kv_tokens = n,
                    .q_heads = 1,
                    .kv_heads = 1,
                    .head_dim = dim,
                    .value_dim = dim,
                    .dtype = DType::f32};
  return {.shape = shape, .mask = Mask::full(n, n), .scale = 1.0};
}
inline Problem full_problem() {
  return one_head(tokens, 32);
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

/// One token per rank and one head of 125 elements of 4 bytes: queries of 500 bytes, keys and values of
/// 1,000, a state of 127 · 4 = 508, an output of 125 · 4 + 4 = 504. A fold of one pair is 2 · 250 = 500
/// flops.
class Tiny : public PlanBuilder {
 public:
  explicit Tiny(int ranks_in, Index rows = 1)
      : PlanBuilder(problem(ranks_in, rows),
                    make_layouts("contiguous", problem(ranks_in, rows).mask, ranks_in), "tiny") {}

  /// The rank's own keys and values, 1,000 bytes a row, in this round.
  void send_kv(int from, int to) { send(from, at_rest, to, kv_blocks(from).front()); }
  /// The rank's own queries with its own keys, in this round.
  void fold_own(int rank) { fold_at_home(rank, q_blocks(rank).front(), kv_blocks(rank).front(), at_rest); }

 private:
  static Problem problem(int ranks_in, Index rows) { return one_head(ranks_in * rows, 125); }
};

/// 1,000 bytes take 0.25 + 1 s on a link within a node and arrive 0.5 s later; 0.125 + 2 + 4 s between nodes.
/// A fold of one pair takes 2 s. Memory costs nothing.
inline Machine tiny_machine(int ranks_per_node) {
  return {.ranks_per_node = ranks_per_node,
          .flops_per_second = 250,
          .memory_bytes_per_second = 1e15,
          .key_bytes_per_second = 1e15,
          .merge_bytes_per_second = 1e15,
          .node = {.latency_seconds = 0.5, .bytes_per_second = 1000, .message_seconds = 0.25},
          .network = {.latency_seconds = 4, .bytes_per_second = 500, .message_seconds = 0.125}};
}

inline Simulation simulate(Tiny&& tiny, Machine const& machine) {
  tiny.end_round();
  return plait::simulate(std::move(tiny).done(), machine, Record::nothing);
}

}  // namespace plait::test
