// Random masks, layouts and shapes for property tests; each test prints its seed.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>

#include "plait/layout.hpp"
#include "plait/machine.hpp"
#include "plait/problem.hpp"

namespace plait::test {

using Random = std::mt19937_64;

/// The seed of a property test: PLAIT_SEED if it is set, else `fallback`.
inline std::uint64_t seed_or(std::uint64_t fallback) {
  char const* const given = std::getenv("PLAIT_SEED");
  return given != nullptr ? std::stoull(given) : fallback;
}

inline Index uniform(Random& random, Index low, Index high) {
  return std::uniform_int_distribution<Index>(low, high)(random);
}

/// A mask of any kind, or an intersection of several.
inline Mask random_mask(Random& random, Index q_tokens, Index kv_tokens) {
  Mask mask = Mask::full(q_tokens, kv_tokens);
  if (uniform(random, 0, 1) == 1) mask = mask.intersect(Mask::causal(q_tokens, kv_tokens));
  if (uniform(random, 0, 2) == 0) {
    Index const longest = q_tokens + kv_tokens;
    mask = mask.intersect(Mask::window(q_tokens, kv_tokens, uniform(random, -1, longest / 2),
                                       uniform(random, -1, longest / 2)));
  }
  if (q_tokens == kv_tokens && uniform(random, 0, 2) == 0) {
    std::vector<Index> lengths;
    Index left = q_tokens;
    while (left > 0) {
      lengths.push_back(std::min(left, uniform(random, 0, q_tokens / 2 + 1)));
      left -= lengths.back();
    }
    mask = mask.intersect(Mask::documents(lengths));
  }
  if (uniform(random, 0, 2) == 0) {
    Index const block = uniform(random, 1, q_tokens / 4 + 2);
    auto const blocks = [&](Index tokens) { return (tokens + block - 1) / block; };
    std::vector<std::uint8_t> kept(static_cast<std::size_t>(blocks(q_tokens) * blocks(kv_tokens)));
    for (auto& entry : kept) entry = uniform(random, 0, 1) == 1 ? 1 : 0;
    mask = mask.intersect(Mask::blocks(q_tokens, kv_tokens, block, kept));
  }
  return mask;
}

/// Any assignment of slices to ranks, some ranks possibly without any.
inline Layout random_layout(Random& random, Index tokens, int ranks) {
  std::vector<std::vector<Slice>> slices(static_cast<std::size_t>(ranks));
  for (Index at = 0; at < tokens;) {
    Index const end = std::min(tokens, at + uniform(random, 1, tokens / ranks + 2));
    slices[static_cast<std::size_t>(uniform(random, 0, ranks - 1))].push_back({at, end});
    at = end;
  }
  return Layout::from_slices(tokens, slices);
}

inline Layouts random_layouts(Random& random, Mask const& mask, int ranks) {
  switch (uniform(random, 0, 4)) {
    case 0:
      return make_layouts("contiguous", mask, ranks);
    case 1:
      return make_layouts("zigzag", mask, ranks);
    case 2:
      return make_layouts("balanced", mask, ranks);
    case 3:
      return make_layouts("root", mask, ranks);
    default:
      return {random_layout(random, mask.q_tokens(), ranks), random_layout(random, mask.kv_tokens(), ranks)};
  }
}

/// A machine whose numbers differ from plausible ones by factors of up to 1000.
inline Machine random_machine(Random& random, int ranks) {
  std::uniform_real_distribution<double> exponent(-3.0, 3.0);
  auto const around = [&](double value) { return value * std::pow(10.0, exponent(random)); };
  auto const one_in = [&](Index chances) { return uniform(random, 1, chances) == 1; };
  auto const link = [&] {
    return Link{.latency_seconds = around(1e-5),
                .bytes_per_second = around(1e8),
                .message_seconds = around(1e-6),
                .buffer_bytes = one_in(2) ? around(1e4) : 0.0};
  };
  return {.ranks_per_node = static_cast<int>(uniform(random, 1, ranks)),
          .flops_per_second = around(1e9),
          .fold_seconds = around(1e-6),
          .units = static_cast<int>(uniform(random, 1, 64)),
          .memory_bytes_per_second = around(1e9),
          .key_bytes_per_second = around(1e9),
          .merge_bytes_per_second = around(1e9),
          .step_seconds = around(1e-6),
          .node = link(),
          .network = link(),
          .port_bytes_per_second = one_in(2) ? around(1e8) : 0.0,
          .host_seconds_per_byte = one_in(3) ? around(1e-9) : 0.0,
          .round_seconds = one_in(3) ? around(1e-6) : 0.0,
          .link_share_computing = one_in(4) ? 0.5 : 1.0,
          .link_share_exposed = one_in(4) ? 0.75 : 1.0,
          .crowd_ranks = static_cast<int>(uniform(random, 1, ranks)),
          .alone_speedup = one_in(2) ? 1.5 : 1.0};
}

/// Every variant of every strategy that can do the problem: all grids, all nodes that divide the ranks.
inline std::vector<std::string> all_variants(Problem const& problem, Layouts const& layouts) {
  int const ranks = layouts.q.ranks();
  std::vector<std::string> names = {"ring",        "ring:1", "ring:3",   "allgather",   "allgather:1",
                                    "allgather:2", "passq",  "tree:log", "tree:direct", "tree:native"};
  for (int a = 1; a <= ranks; ++a) {
    if (ranks % a != 0) continue;
    std::string const b = std::to_string(ranks / a);
    names.push_back("mesh:" + std::to_string(a) + "x" + b);
    names.push_back("hierarchical:" + std::to_string(a) + "x" + b);
    if (a == 1 || a > problem.shape.kv_heads) continue;
    for (Index stages = 1; a == ranks && stages <= problem.shape.kv_heads / ranks; ++stages) {
      names.push_back("ulysses:" + std::to_string(a) + ":" + std::to_string(stages));
    }
    for (int rows = 1; rows <= ranks / a; ++rows) {
      if (ranks / a % rows != 0) continue;
      names.push_back("ulysses:" + std::to_string(a) + "+mesh:" + std::to_string(rows) + "x" +
                      std::to_string(ranks / a / rows));
    }
  }
  return names;
}

}  // namespace plait::test
