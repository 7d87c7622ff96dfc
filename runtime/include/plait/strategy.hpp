// Strategies: functions that write plans. Nothing else in the program knows them by name.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "plait/plan.hpp"

namespace plait {

/// One way of splitting attention over ranks.
struct Strategy {
  std::string_view name;
  std::string_view summary;  ///< one sentence for people
  Plan (*make)(Problem const&, Layouts const&);
};

/// All of them, in a fixed order.
[[nodiscard]] std::span<Strategy const> strategies();

/// Writes the plan of the strategy called `name`. Pure and deterministic: the same arguments give the same
/// plan on every rank. @throws InvalidProblem if the name is unknown (naming those that exist), if the
/// problem is invalid, or if the layouts are not for it
[[nodiscard]] Plan make_plan(Problem const& problem, Layouts const& layouts, std::string_view name);

}  // namespace plait
