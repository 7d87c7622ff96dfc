// Ring (pass-KV): queries stay; key/value blocks travel from rank to next rank, one hop a round. With few
// ranks the blocks are cut, and the pieces go round one after the other.
#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "grid.hpp"
#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// A key/value block on its way round the ring.
struct Traveller {
  BlockId kv;
  int hops;  ///< rounds until the last rank that needs it has it
  SlotId slot = at_rest;
};

/// How far the block must travel: the distance of the last rank after its home that needs it.
int hops_needed(PlanBuilder const& plan, int home, BlockId kv) {
  return std::max(0, plan.ranks_that_need(kv).last_around({0, plan.ranks()}, home) - home);
}

/// The travellers whose homes send them off in the turn of `piece`.
class Travellers {
 public:
  Travellers(PlanBuilder& plan, Index piece)
      : plan_(plan), piece_(piece), by_home_(static_cast<std::size_t>(plan.ranks())) {}

  [[nodiscard]] std::vector<Traveller>& of(int home) {
    auto& mine = by_home_[static_cast<std::size_t>(home)];
    if (mine) return *mine;
    mine.emplace();
    mine->reserve(plan_.kv_blocks(home, piece_).size());
    for (BlockId const kv : plan_.kv_blocks(home, piece_)) {
      mine->push_back({.kv = kv, .hops = hops_needed(plan_, home, kv)});
    }
    return *mine;
  }

 private:
  PlanBuilder& plan_;
  Index piece_;
  std::vector<std::optional<std::vector<Traveller>>> by_home_;  ///< once asked for
};

/// One round of the travellers that are `hop` hops away from home: fold, and pass on.
void play(PlanBuilder& plan, Travellers& on_their_way, int hop) {
  for (int const holder : plan.written_or_before(1)) {
    int const next = (holder + 1) % plan.ranks();
    for (Traveller& traveller : on_their_way.of((holder - hop + plan.ranks()) % plan.ranks())) {
      if (traveller.hops < hop) continue;
      for (BlockId const q : plan.q_blocks(holder)) {
        if (plan.meet(q, traveller.kv)) plan.fold_at_home(holder, q, traveller.kv, traveller.slot);
      }
      plan.release(holder, traveller.slot);
      if (traveller.hops > hop) {
        traveller.slot = plan.send(holder, traveller.slot, next, traveller.kv);
      }
    }
  }
}

}  // namespace

/// The pieces take turns of P−1 rounds; the last fold of a turn falls into the first round of the next, so
/// every round but the last has a transfer to hide.
Plan ring_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
               Extent const& extent) {
  int const asked = arguments.empty() ? 0 : parse_count("ring", arguments, "pieces");
  Index const pieces = pieces_to_travel(layouts.kv, asked);
  PlanBuilder plan(problem, layouts, asked == 0 ? "ring" : fmt::format("ring:{}", arguments), extent, pieces);
  int const last_hop = plan.ranks() - 1;
  std::optional<Travellers> arriving;  // of the turn before: they have one fold to go
  for (Index piece = 0; piece < pieces; ++piece) {
    Travellers on_their_way(plan, piece);
    for (int hop = 0; hop < last_hop || hop == 0; ++hop) {
      if (hop == 0 && arriving) play(plan, *arriving, last_hop);
      play(plan, on_their_way, hop);
      plan.end_round();
    }
    if (last_hop > 0) arriving.emplace(std::move(on_their_way));
  }
  if (arriving) play(plan, *arriving, last_hop);
  plan.end_round();
  return std::move(plan).finish_at_home();
}

std::vector<Index> pieces_worth_weighing(Problem const& problem, Group const& group) {
  Index const tokens = problem.shape.kv_tokens / group.ranks;  // in one slice, or zigzag in two
  return ascending(std::vector<Index>{1, pieces_to_travel(tokens, group.ranks),
                                      pieces_to_travel(tokens / 2, group.ranks)});
}

std::vector<std::string> ring_variants(Problem const& problem, Group const& group) {
  std::vector<Index> const counts = pieces_worth_weighing(problem, group);
  if (counts.size() == 1) return {"ring"};
  std::vector<std::string> names;
  for (Index const pieces : counts) names.push_back(fmt::format("ring:{}", pieces));
  return names;
}

}  // namespace plait
