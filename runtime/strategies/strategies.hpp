// The strategies' functions, for the one table that knows them by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plait/strategy.hpp"

namespace plait {

[[nodiscard]] Plan ring_plan(Problem const&, Layouts const&, std::string_view arguments,
                             std::span<int const> only);
[[nodiscard]] Plan allgather_plan(Problem const&, Layouts const&, std::string_view arguments,
                                  std::span<int const> only);
[[nodiscard]] Plan passq_plan(Problem const&, Layouts const&, std::string_view arguments,
                              std::span<int const> only);
[[nodiscard]] Plan mesh_plan(Problem const&, Layouts const&, std::string_view arguments,
                             std::span<int const> only);
[[nodiscard]] Plan ulysses_plan(Problem const&, Layouts const&, std::string_view arguments,
                                std::span<int const> only);
[[nodiscard]] Plan tree_plan(Problem const&, Layouts const&, std::string_view arguments,
                             std::span<int const> only);
[[nodiscard]] Plan hierarchical_plan(Problem const&, Layouts const&, std::string_view arguments,
                                     std::span<int const> only);

[[nodiscard]] std::vector<std::string> allgather_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> mesh_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> ulysses_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> tree_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> hierarchical_variants(Problem const&, Group const&);

/// For strategies without arguments. @throws InvalidProblem if there are any
void require_no_arguments(std::string_view strategy, std::string_view arguments);

}  // namespace plait
