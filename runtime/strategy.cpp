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
        .summary =
            "queries stay; key/value blocks travel from rank to next rank until no later rank needs them",
        .make = ring_plan},
    Strategy{.name = "allgather",
             .summary =
                 "queries stay; each rank gets the key/value blocks that it needs straight from their homes",
             .make = allgather_plan},
    Strategy{.name = "passq",
             .summary = "keys and values stay; queries visit them, and partial states come back to be merged",
             .make = passq_plan},
};

}  // namespace

std::span<Strategy const> strategies() {
  return table;
}

Plan make_plan(Problem const& problem, Layouts const& layouts, std::string_view name) {
  validate(problem);
  auto const found = std::ranges::find(table, name, &Strategy::name);
  if (found == table.end()) {
    std::string names;
    for (Strategy const& strategy : table)
      names += fmt::format("{}{}", names.empty() ? "" : ", ", strategy.name);
    throw InvalidProblem(fmt::format("strategy '{}': must be one of {}", name, names));
  }
  if (layouts.q.tokens() != problem.shape.q_tokens || layouts.kv.tokens() != problem.shape.kv_tokens ||
      layouts.q.ranks() != layouts.kv.ranks()) {
    throw InvalidProblem(
        fmt::format("layouts of {} × {} tokens over {} and {} ranks do not fit a problem of {} × {} tokens",
                    layouts.q.tokens(), layouts.kv.tokens(), layouts.q.ranks(), layouts.kv.ranks(),
                    problem.shape.q_tokens, problem.shape.kv_tokens));
  }
  return found->make(problem, layouts);
}

}  // namespace plait
