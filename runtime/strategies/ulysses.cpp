// Ulysses: heads are spread over ranks by an all-to-all, so that each has all tokens for its share of the
// heads; with a mesh beside it, over groups of ranks.
#include <fmt/format.h>

#include <algorithm>

#include "head_mesh.hpp"
#include "staged_ulysses.hpp"
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

/// Every rank has a head in each.
int most_stages(Problem const& problem, int ranks) {
  return static_cast<int>(problem.shape.kv_heads / ranks);
}

/// What the arguments say.
struct Spread {
  std::string name;
  int u;
  bool alone;  ///< without a mesh beside it
  Grid grid;
  int stages;  ///< of heads; 0: tokens come and go in rounds instead
};

Spread parse_spread(std::string_view arguments, int ranks) {
  std::string const name = arguments.empty() ? "ulysses" : fmt::format("ulysses:{}", arguments);
  std::size_t const plus = arguments.find(product);
  bool const alone = plus == std::string_view::npos;
  std::string_view const spread = arguments.substr(0, plus);
  std::size_t const colon = alone ? spread.find(':') : std::string_view::npos;
  int const u = arguments.empty() ? ranks : parse_count(name, spread.substr(0, colon), "ranks");
  int const stages =
      colon == std::string_view::npos ? 0 : parse_count(name, spread.substr(colon + 1), "stages");
  Grid const grid = alone ? Grid{} : parse_grid(name, arguments.substr(plus + product.size()));
  return {name, u, alone, grid, stages};
}

}  // namespace

double ulysses_bytes(Problem const& problem, int ranks, std::string_view arguments) {
  return mesh_bytes(problem.shape, ranks, parse_spread(arguments, ranks).grid);
}

Plan ulysses_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                  Extent const& extent) {
  int const ranks = layouts.q.ranks();
  auto const [name, u, alone, grid, stages] = parse_spread(arguments, ranks);
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
  if (stages > most_stages(problem, ranks)) {
    throw InvalidProblem(
        fmt::format("strategy '{}': a rank has {} of the key/value heads, too few for {} stages", name,
                    problem.shape.kv_heads / ranks, stages));
  }
  if (stages > 0) {
    return staged_ulysses_plan(problem, layouts, fmt::format("ulysses:{}:{}", u, stages), stages, extent);
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
    for (int const stages : {1, 2, 4}) {
      if (group.ranks == 1 || stages > most_stages(problem, group.ranks)) break;
      names.push_back(fmt::format("ulysses:{}:{}", group.ranks, stages));
    }
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
