// The numbers in a strategy's name: "mesh:2x4", "ulysses:8+mesh:2x4".
#pragma once

#include <string_view>

#include "plait/problem.hpp"

namespace plait {

/// A × B ranks.
struct Grid {
  int a = 1;
  int b = 1;
};

/// Reads "AxB", both at least 1. @throws InvalidProblem naming `strategy` and the text
[[nodiscard]] Grid parse_grid(std::string_view strategy, std::string_view text);

/// Reads a number of `what` ("ranks"), at least 1. @throws InvalidProblem naming `strategy` and the text
[[nodiscard]] int parse_count(std::string_view strategy, std::string_view text, std::string_view what);

/// Bytes that a rank of a mesh receives, its states included, where every rank has so many queries and keys
/// and the mask keeps all: (A − 1) · queries · x + (B − 1) · keys · y, x = q_heads · (D·e + (Dv + 2)·s),
/// y = kv_heads · (D + Dv) · e.
[[nodiscard]] double mesh_bytes(Shape const& shape, double queries, double keys, Grid grid);

/// The same for the problem's tokens, evenly over so many ranks.
[[nodiscard]] double mesh_bytes(Shape const& shape, int ranks, Grid grid);

/// The grid of `ranks` whose mesh moves the fewest bytes (DESIGN §4): A near √(P·y/x).
[[nodiscard]] Grid lightest_mesh(Shape const& shape, int ranks);

}  // namespace plait
