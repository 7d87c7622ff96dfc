// Ulysses: heads are spread over ranks by an all-to-all, so that each has all tokens for its share of the
// heads; with a mesh beside it, over groups of ranks.
#include <fmt/format.h>

#include <algorithm>

#include "head_mesh.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

constexpr std::string_view product = "+mesh:";

/// Divisors of `ranks` that leave every rank a head.
std::vector<int> head_ranks(Problem const& problem, int ranks) {
  std::vector<int> found;
  for (int u = 2; u <= ranks && u <= problem.shape.kv_heads; ++u) {
    if (ranks % u == 0) found.push_back(u);
  }
  return found;
}

/// What the arguments say.
struct Spread {
  std::string name;
  int u;
  bool alone;  ///< without a mesh beside it
  Grid grid;
};

Spread parse_spread(std::string_view arguments, int ranks) {
  std::string const name = arguments.empty() ? "ulysses" : fmt::format("ulysses:{}", arguments);
  std::size_t const plus = arguments.find(product);
  bool const alone = plus == std::string_view::npos;
  int const u = arguments.empty() ? ranks : parse_count(name, arguments.substr(0, plus), "ranks");
  Grid const grid = alone ? Grid{} : parse_grid(name, arguments.substr(plus + product.size()));
  return {name, u, alone, grid};
}

}  // namespace

double ulysses_bytes(Problem const& problem, int ranks, std::string_view arguments) {
  return mesh_bytes(problem.shape, ranks, parse_spread(arguments, ranks).grid);
}

Plan ulysses_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                  Extent const& extent) {
  int const ranks = layouts.q.ranks();
  auto const [name, u, alone, grid] = parse_spread(arguments, ranks);
  if (u > problem.shape.kv_heads) {
    throw InvalidProblem(
        fmt::format("strategy '{}': {} ranks cannot share {} key/value head{}; spread over the heads' number "
                    "of ranks or fewer, "
                    "beside a mesh: ulysses:U+mesh:AxB",
                    name, u, problem.shape.kv_heads, problem.shape.kv_heads == 1 ? "" : "s"));
  }
  if (u * grid.a * grid.b != ranks) {
    throw InvalidProblem(
        fmt::format("strategy '{}': it is for {} ranks, not {}", name, u * grid.a * grid.b, ranks));
  }
  std::string const full =
      alone ? fmt::format("ulysses:{}", u) : fmt::format("ulysses:{}{}{}x{}", u, product, grid.a, grid.b);
  return head_mesh_plan(problem, layouts, full, u, grid, extent);
}

/// All heads' shares that fit, each beside the meshes next to the lightest, and the two one-sided ones.
std::vector<std::string> ulysses_variants(Problem const& problem, Group const& group) {
  std::vector<std::string> names;
  if (group.ranks <= problem.shape.kv_heads || group.ranks == 1) {
    names.push_back(fmt::format("ulysses:{}", group.ranks));
  }
  for (int const u : head_ranks(problem, group.ranks)) {
    int const rest = group.ranks / u;
    if (rest == 1) continue;
    int const best = lightest_mesh(problem.shape, rest).a;
    for (int a = 1; a <= rest; ++a) {
      bool const near = a == 1 || (2 * a >= best && a <= 2 * best);
      if (rest % a == 0 && near) names.push_back(fmt::format("ulysses:{}{}{}x{}", u, product, a, rest / a));
    }
  }
  if (names.empty()) names.emplace_back("ulysses");
  return names;
}

}  // namespace plait
