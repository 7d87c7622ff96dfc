// The strategies' functions, for the one table that knows them by name.
#pragma once

#include "plait/plan.hpp"

namespace plait {

[[nodiscard]] Plan ring_plan(Problem const& problem, Layouts const& layouts);
[[nodiscard]] Plan allgather_plan(Problem const& problem, Layouts const& layouts);
[[nodiscard]] Plan passq_plan(Problem const& problem, Layouts const& layouts);

}  // namespace plait
