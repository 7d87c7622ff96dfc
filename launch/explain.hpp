// Why a plan was chosen, in words.
#pragma once

#include <string>

#include "plait/planner.hpp"

namespace plait {

/// "71.0% folds, 22.1% transfers between nodes, 6.9% latency".
[[nodiscard]] std::string in_words(Spent const& spent);

/// How the choice was made, what each strategy's best plan would cost and what holds it back, and why others
/// could not be. For people who see the vocabulary for the first time.
[[nodiscard]] std::string explain(Choice const& choice, Machine const& machine);

}  // namespace plait
