#include "grid.hpp"

#include <fmt/format.h>

#include <charconv>

namespace plait {

int parse_count(std::string_view strategy, std::string_view text, std::string_view what) {
  int count = 0;
  char const* const end = text.data() + text.size();
  auto const [stop, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc{} || stop != end || count < 1) {
    throw InvalidProblem(
        fmt::format("strategy '{}': '{}' must be a number of {}, 1 or more", strategy, text, what));
  }
  return count;
}

Grid parse_grid(std::string_view strategy, std::string_view text) {
  std::size_t const cross = text.find('x');
  if (cross == std::string_view::npos) {
    throw InvalidProblem(fmt::format("strategy '{}': '{}' must be a grid AxB, as in 2x4", strategy, text));
  }
  return {parse_count(strategy, text.substr(0, cross), "ranks"),
          parse_count(strategy, text.substr(cross + 1), "ranks")};
}

double mesh_bytes(Shape const& shape, double queries, double keys, Grid grid) {
  auto const e = static_cast<double>(size_bytes(shape.dtype));
  auto const dim = static_cast<double>(shape.head_dim);
  auto const value_dim = static_cast<double>(shape.value_dim);
  double const x = static_cast<double>(shape.q_heads) * (dim * e + (value_dim + 2) * sizeof(float));
  double const y = static_cast<double>(shape.kv_heads) * (dim + value_dim) * e;
  return (grid.a - 1) * queries * x + (grid.b - 1) * keys * y;
}

double mesh_bytes(Shape const& shape, int ranks, Grid grid) {
  return mesh_bytes(shape, static_cast<double>(shape.q_tokens) / ranks,
                    static_cast<double>(shape.kv_tokens) / ranks, grid);
}

Grid lightest_mesh(Shape const& shape, int ranks) {
  auto const bytes = [&](int a) { return mesh_bytes(shape, 1.0, 1.0, {a, ranks / a}); };
  int best = 1;
  for (int a = 2; a <= ranks; ++a) {
    if (ranks % a == 0 && bytes(a) < bytes(best)) best = a;
  }
  return {best, ranks / best};
}

}  // namespace plait
