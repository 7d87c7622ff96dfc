// The strategies' functions, for the one table that knows them by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plait/strategy.hpp"

namespace plait {

[[nodiscard]] Plan ring_plan(Problem const&, Layouts const&, std::string_view arguments,
                             Extent const& extent);
[[nodiscard]] Plan allgather_plan(Problem const&, Layouts const&, std::string_view arguments,
                                  Extent const& extent);
[[nodiscard]] Plan passq_plan(Problem const&, Layouts const&, std::string_view arguments,
                              Extent const& extent);
[[nodiscard]] Plan mesh_plan(Problem const&, Layouts const&, std::string_view arguments,
                             Extent const& extent);
[[nodiscard]] Plan ulysses_plan(Problem const&, Layouts const&, std::string_view arguments,
                                Extent const& extent);
[[nodiscard]] Plan tree_plan(Problem const&, Layouts const&, std::string_view arguments,
                             Extent const& extent);
[[nodiscard]] Plan hierarchical_plan(Problem const&, Layouts const&, std::string_view arguments,
                                     Extent const& extent);

[[nodiscard]] std::vector<std::string> ring_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> allgather_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> passq_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> mesh_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> ulysses_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> tree_variants(Problem const&, Group const&);
[[nodiscard]] std::vector<std::string> hierarchical_variants(Problem const&, Group const&);

/// Into how many pieces key/value blocks that travel may be cut: not at all, and as `pieces_to_travel` says
/// for the layouts; ascending.
[[nodiscard]] std::vector<Index> pieces_worth_weighing(Problem const&, Group const&);

/// Strategy::bytes: of keys that come from all other ranks; of queries that go to all others and come back;
/// of both in a mesh, in one beside the heads (whose all-to-all is left aside).
[[nodiscard]] double all_keys_bytes(Problem const&, int ranks, std::string_view arguments);
[[nodiscard]] double all_queries_bytes(Problem const&, int ranks, std::string_view arguments);
[[nodiscard]] double mesh_strategy_bytes(Problem const&, int ranks, std::string_view arguments);
[[nodiscard]] double ulysses_bytes(Problem const&, int ranks, std::string_view arguments);

/// For strategies without arguments. @throws InvalidProblem if there are any
void require_no_arguments(std::string_view strategy, std::string_view arguments);

}  // namespace plait
