// Strategies: functions that write plans. Nothing else in the program knows them by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

/// How states of the same rows become one: by messages between two ranks and merges, or in the MPI library's
/// own collective, with Plait's merge as its operator.
enum class Reduce : std::uint8_t { p2p, native };
[[nodiscard]] std::string_view name(Reduce reduce);

/// What a strategy's variants may depend on.
struct Group {
  int ranks = 1;
  int ranks_per_node = 1;  ///< consecutive ranks share a node; a number that does not divide: no nodes known
  Reduce reduce = Reduce::p2p;
};

/// One way of splitting attention over ranks, or a family of them.
struct Strategy {
  std::string_view name;
  std::string_view form;     ///< how it is asked for: "mesh[:AxB]"
  std::string_view summary;  ///< one sentence for people
  /// @param arguments  what follows the name and a colon, or nothing
  Plan (*make)(Problem const&, Layouts const&, std::string_view arguments, Extent const& extent);
  /// About how many bytes a rank receives if the mask keeps all pairs: it tells which of many plans to look
  /// at first, and no more. The arguments are those of a variant.
  double (*bytes)(Problem const&, int ranks, std::string_view arguments);
  /// The names of the variants worth weighing, in a fixed order; its own name if it has none.
  std::vector<std::string> (*variants)(Problem const&, Group const&);
  bool reduces_natively = false;  ///< it has variants for Reduce::native
};

/// All of them, in a fixed order.
[[nodiscard]] std::span<Strategy const> strategies();

/// The strategy of a name with or without arguments. @throws InvalidProblem if it is unknown, naming those
/// that exist
[[nodiscard]] Strategy const& strategy_of(std::string_view name);

/// Writes the plan of the strategy called `name`, which may have arguments ("mesh:2x4"). Pure and
/// deterministic: the same arguments give the same plan on every rank.
/// @param only  ranks: theirs are the only programs that are written, in much less time; none: all are. They
/// do in each round what they do in the whole plan, but blocks and slots are numbered, and steps of a kind
/// ordered, in other ways; rounds in which none of them has a step are left out, and so may be finishes
/// @param watch  sees the plan grow; what it throws is passed on
/// @throws InvalidProblem if the name is unknown (naming those that exist), if the problem is invalid, or if
/// the layouts are not for it
[[nodiscard]] Plan make_plan(Problem const& problem, Layouts const& layouts, std::string_view name,
                             std::span<int const> only = {}, Watch const& watch = {});

}  // namespace plait
