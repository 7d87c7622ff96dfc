// All-gather (pass-KV): queries stay; each rank gets every key/value block that it needs straight from its
// home, in the shifted order of a pairwise exchange. Either a block a round, so that folds start after the
// first and slots are reused, or the blocks of many ranks in one, so that folds are few and large.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "exchange.hpp"
#include "gather.hpp"
#include "grid.hpp"
#include "plait/plan_builder.hpp"
#include "plait/rounding.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

/// A key/value block at a rank that will fold it.
struct Arrived {
  int rank;
  BlockId kv;
  SlotId slot;
};

class AllGather {
 public:
  explicit AllGather(PlanBuilder& plan)
      : plan_(plan), parcels_(plan), arrivals_(static_cast<std::size_t>(plan.ranks())) {}

  /// A rank's own piece, which is folded where it lies.
  void begin(Index piece) {
    for (int const rank : plan_.written()) {
      for (BlockId const kv : plan_.kv_blocks(rank, piece)) arrived_.push_back({rank, kv, at_rest});
    }
  }

  /// A round: every rank sends to those `first` to `last` − 1 ranks after it, while what arrived in the round
  /// before is folded.
  void round(Index piece, int first, int last) {
    fold_and_release();
    for (int distance = first; distance < last; ++distance) list_arrivals(piece, distance);
    for (int const to : ascending(std::exchange(receivers_, {}))) {
      auto& arrivals = arrivals_[static_cast<std::size_t>(to)];
      std::ranges::sort(arrivals, {}, [](Arrival const& arrival) { return arrival.slice.begin; });
      receive(to, arrivals);
      arrivals.clear();
    }
    parcels_.send();
    plan_.end_round();
  }

  /// The last round.
  void end() {
    fold_and_release();
    plan_.end_round();
  }

 private:
  void list_arrivals(Index piece, int distance) {
    for (int const from : plan_.written_or_before(distance)) {
      int const to = (from + distance) % plan_.ranks();
      for (BlockId const kv : plan_.kv_blocks(from, piece)) {
        if (!plan_.rank_needs(to, kv)) continue;
        receivers_.push_back(to);
        arrivals_[static_cast<std::size_t>(to)].push_back(
            {.round = 0, .from = from, .piece = 0, .block = kv, .slice = plan_.block(kv).slice});
      }
    }
  }

  /// Blocks whose slices touch lie in one slot, as one block, which one fold takes.
  void receive(int to, std::vector<Arrival> const& arrivals) {
    gather(arrivals, gathered_);
    auto const& [gatherings, taken_by] = gathered_;
    std::vector<PlanBuilder::Place> places;
    for (Gathering const& gathering : gatherings) {
      BlockId whole = arrivals[gathering.first].block;
      if (gathering.count > 1 && plan_.writes(to)) {
        whole = plan_.add_kv(gathering.slice, plan_.block(whole).heads, Block::gathered);
      }
      places.push_back({to, plan_.acquire(to, whole), whole});
      if (plan_.writes(to)) arrived_.push_back({to, whole, places.back().slot});
    }
    for (std::size_t i = 0; i < arrivals.size(); ++i) {
      auto const& [round, from, piece, block, slice] = arrivals[i];
      parcels_.add({from, at_rest, block}, places[taken_by[i]], block);
    }
  }

  void fold_and_release() {
    for (Arrived const& here : std::exchange(arrived_, {})) {
      for (BlockId const q : plan_.q_blocks(here.rank)) {
        if (plan_.meet(q, here.kv)) plan_.fold_at_home(here.rank, q, here.kv, here.slot);
      }
      plan_.release(here.rank, here.slot);
    }
  }

  PlanBuilder& plan_;
  Parcels parcels_;                             ///< of the round at hand
  std::vector<Arrived> arrived_;                ///< to be folded in the next round
  std::vector<std::vector<Arrival>> arrivals_;  ///< of the round at hand, by rank
  std::vector<int> receivers_;                  ///< the ranks that have some
  Gathered gathered_;                           ///< of the rank at hand
};

/// What comes to the ranks that are written.
void foretell(PlanBuilder& plan, Index pieces) {
  for (int const rank : plan.written()) {
    for (int from = 0; from < plan.ranks(); ++from) {
      for (Index piece = 0; piece < pieces && from != rank; ++piece) {
        for (BlockId const kv : plan.kv_blocks(from, piece)) {
          if (plan.rank_needs(rank, kv)) plan.send({from, at_rest, kv}, {rank, at_rest, kv}, kv);
        }
      }
    }
  }
  plan.foretell(plan.blocks());
}

/// How the blocks of the other ranks come: in `pieces` turns of `rounds` rounds.
struct Schedule {
  Index pieces;
  int rounds;
};

/// @param asked  rounds in all: fewer than there are other ranks take blocks of several in one, more cut
/// them, as far as they can be. 0: of one rank in each round, in pieces if ranks are few
Schedule schedule(Layout const& kv, int asked) {
  int const others = kv.ranks() - 1;
  if (asked == 0) return {pieces_to_travel(kv), others};
  return {pieces_to_travel(kv, others > 0 ? divided_up(asked, others) : 1), std::min(asked, others)};
}

}  // namespace

/// In each round every rank sends to some of those after it, in the order of their distance. What arrives is
/// folded in the next round; what a rank owns is folded in the first of its piece.
Plan allgather_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                    Extent const& extent) {
  bool const each = arguments.empty() || arguments == "each";
  int const asked = each ? 0 : parse_count("allgather", arguments, "rounds");
  auto const [pieces, rounds] = schedule(layouts.kv, asked);
  std::string const name = arguments.empty() ? "allgather" : fmt::format("allgather:{}", arguments);
  PlanBuilder plan(problem, layouts, name, extent, pieces);
  if (plan.foretells()) foretell(plan, pieces);
  AllGather writer(plan);
  int const others = plan.ranks() - 1;
  for (Index piece = 0; piece < pieces; ++piece) {
    writer.begin(piece);
    for (int round = 0; round < rounds; ++round) {
      writer.round(piece, 1 + others * round / rounds, 1 + others * (round + 1) / rounds);
    }
  }
  writer.end();
  return std::move(plan).finish_at_home();
}

std::vector<std::string> allgather_variants(Problem const& problem, Group const& group) {
  std::vector<std::string> names{"allgather:each"};
  int const others = group.ranks - 1;
  for (int const rounds : {1, 4}) {
    if (others > rounds) names.push_back(fmt::format("allgather:{}", rounds));
  }
  if (pieces_worth_weighing(problem, group).size() > 1) names.push_back(fmt::format("allgather:{}", others));
  return names;
}

}  // namespace plait
