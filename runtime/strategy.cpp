#include "plait/strategy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "strategies/strategies.hpp"

namespace plait {
namespace {

constexpr std::array table{
    Strategy{
        .name = "ring",
        .form = "ring[:PIECES]",
        .summary =
            "queries stay; key/value blocks travel from rank to next rank until no later rank needs them",
        .make = ring_plan,
        .bytes = all_keys_bytes,
        .variants = ring_variants},
    Strategy{
        .name = "allgather",
        .form = "allgather[:each|:ROUNDS]",
        .summary =
            "queries stay; key/value blocks come straight from their homes, each in a round or all in ROUNDS",
        .make = allgather_plan,
        .bytes = all_keys_bytes,
        .variants = allgather_variants},
    Strategy{.name = "passq",
             .form = "passq",
             .summary = "keys and values stay; queries visit them, and partial states come back to be merged",
             .make = passq_plan,
             .bytes = all_queries_bytes,
             .variants = passq_variants},
    Strategy{.name = "mesh",
             .form = "mesh[:AxB]",
             .summary = "queries are gathered over A ranks, keys and values over B; partial states come back",
             .make = mesh_plan,
             .bytes = mesh_strategy_bytes,
             .variants = mesh_variants},
    Strategy{.name = "ulysses",
             .form = "ulysses[:U[:STAGES|+mesh:AxB]]",
             .summary = "heads are spread over U ranks by an all-to-all, a part of them at a time or beside "
                        "a mesh of A×B groups",
             .make = ulysses_plan,
             .bytes = ulysses_bytes,
             .variants = ulysses_variants},
    Strategy{
        .name = "tree",
        .form = "tree[:log|:direct|:native]",
        .summary =
            "for few queries: they go to all keys at once, and states merge on a tree, or straight at home",
        .make = tree_plan,
        .bytes = all_queries_bytes,
        .variants = tree_variants,
        .reduces_natively = true},
    Strategy{.name = "hierarchical",
             .form = "hierarchical:NODESxRANKS",
             .summary = "the ring in two levels: an inner ring within each node, an outer ring between nodes",
             .make = hierarchical_plan,
             .bytes = all_keys_bytes,
             .variants = hierarchical_variants},
};

}  // namespace

std::string_view name(Reduce reduce) {
  return reduce == Reduce::native ? "native" : "p2p";
}

std::span<Strategy const> strategies() {
  return table;
}

Strategy const& strategy_of(std::string_view name) {
  auto const found = std::ranges::find(table, name.substr(0, name.find(':')), &Strategy::name);
  if (found != table.end()) return *found;
  std::string forms;
  for (Strategy const& strategy : table)
    forms += fmt::format("{}{}", forms.empty() ? "" : ", ", strategy.form);
  throw InvalidProblem(fmt::format("strategy '{}': must be one of {}", name, forms));
}

void require_no_arguments(std::string_view strategy, std::string_view arguments) {
  if (arguments.empty()) return;
  throw InvalidProblem(fmt::format("strategy '{}:{}': {} takes no arguments", strategy, arguments, strategy));
}

Plan make_plan(Problem const& problem, Layouts const& layouts, std::string_view name,
               std::span<int const> only, Watch const& watch) {
  validate(problem);
  Strategy const& strategy = strategy_of(name);
  if (layouts.q.tokens() != problem.shape.q_tokens || layouts.kv.tokens() != problem.shape.kv_tokens ||
      layouts.q.ranks() != layouts.kv.ranks()) {
    throw InvalidProblem(
        fmt::format("layouts of {} × {} tokens over {} and {} ranks do not fit a problem of {} × {} tokens",
                    layouts.q.tokens(), layouts.kv.tokens(), layouts.q.ranks(), layouts.kv.ranks(),
                    problem.shape.q_tokens, problem.shape.kv_tokens));
  }
  std::size_t const colon = name.find(':');
  bool const plain = colon == std::string_view::npos;
  if (!plain && colon + 1 == name.size()) {
    throw InvalidProblem(
        fmt::format("strategy '{}': nothing follows the colon; must be {}", name, strategy.form));
  }
  return strategy.make(problem, layouts, plain ? std::string_view{} : name.substr(colon + 1),
                       {.ranks = only, .watch = watch});
}

}  // namespace plait
