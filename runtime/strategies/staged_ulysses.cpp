#include "staged_ulysses.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "gather.hpp"
#include "plait/plan_builder.hpp"

namespace plait {
namespace {

/// A stage's query rows, or keys, at the rank that folds them.
struct Held {
  int rank;
  BlockId block;
  SlotId slot;
  std::vector<Arrival> arrivals;  ///< what it is gathered from
};

/// Outputs that go to where their queries came from.
struct Leaving {
  Held rows;
  SlotId out;
};

class StagedUlysses {
 public:
  StagedUlysses(PlanBuilder& plan, Problem const& problem, int stages)
      : plan_(plan), mask_(problem.mask), kv_heads_(problem.shape.kv_heads), stages_(stages) {}

  void write() {
    finish_rows_without_keys();
    for (int round = 0; round < stages_ + 2; ++round) {
      send_outputs();
      fold();
      if (round < stages_) exchange(round);
      // A rank sends to its neighbours first, as all do: none is sent to by everyone at once.
      std::ranges::stable_sort(parcels_, {}, &Parcel::distance);
      for (auto const& [distance, from, to, block] : std::exchange(parcels_, {})) plan_.send(from, to, block);
      plan_.end_round();
    }
  }

 private:
  /// Those of a rank in a stage.
  [[nodiscard]] HeadRange heads_of(int rank, int stage) const {
    HeadRange const all{kv_heads_ * rank / plan_.ranks(), kv_heads_ * (rank + 1) / plan_.ranks()};
    Index const count = all.end - all.begin;
    return {all.begin + count * stage / stages_, all.begin + count * (stage + 1) / stages_};
  }
  /// Whether the mask keeps any pair of a block: others need not travel.
  [[nodiscard]] bool sees_a_key(Slice q) const { return mask_.meets(q, {0, mask_.kv_tokens()}); }
  [[nodiscard]] bool is_seen(Slice kv) const { return mask_.meets({0, mask_.q_tokens()}, kv); }

  void finish_rows_without_keys() {
    for (int const rank : plan_.written()) {
      for (BlockId const q : plan_.q_blocks(rank)) {
        if (!sees_a_key(plan_.block(q).slice)) plan_.finish(rank, q, at_rest, at_rest);
      }
    }
  }

  /// Every rank sends each other one that one's heads of its tokens, and copies its own.
  void exchange(int stage) {
    for (int to = 0; to < plan_.ranks(); ++to) {
      HeadRange const heads = heads_of(to, stage);
      std::vector<Arrival> q;
      std::vector<Arrival> kv;
      for (int from = 0; from < plan_.ranks(); ++from) {
        if (!plan_.writes(from) && !plan_.writes(to)) continue;
        for (Slice const slice : plan_.layouts().q.slices(from)) {
          if (sees_a_key(slice)) q.push_back({0, from, 0, plan_.add_q(slice, heads, from), slice});
        }
        for (Slice const slice : plan_.layouts().kv.slices(from)) {
          if (is_seen(slice)) kv.push_back({0, from, 0, plan_.add_kv(slice, heads, from), slice});
        }
      }
      hold(to, std::move(q), rows_, [&](Slice slice) { return plan_.add_q(slice, heads, Block::gathered); });
      hold(to, std::move(kv), columns_,
           [&](Slice slice) { return plan_.add_kv(slice, heads, Block::gathered); });
    }
  }

  /// Blocks whose slices touch lie in one slot, as one block.
  template <class Add>
  void hold(int to, std::vector<Arrival> arrivals, std::vector<Held>& held, Add&& add) {
    std::ranges::sort(arrivals, {}, [](Arrival const& arrival) { return arrival.slice.begin; });
    gather(arrivals, gathered_);
    auto const& [gatherings, taken_by] = gathered_;
    std::size_t const before = held.size();
    for (Gathering const& gathering : gatherings) {
      BlockId const whole = gathering.count > 1 ? add(gathering.slice) : arrivals[gathering.first].block;
      held.push_back({.rank = to, .block = whole, .slot = plan_.acquire(to, whole), .arrivals = {}});
    }
    for (std::size_t i = 0; i < arrivals.size(); ++i) {
      auto const& [round, from, piece, block, slice] = arrivals[i];
      Held& into = held[before + taken_by[i]];
      into.arrivals.push_back(arrivals[i]);
      send({from, at_rest, block}, {to, into.slot, into.block}, block);
    }
  }

  /// At the end of this round.
  void send(PlanBuilder::Place from, PlanBuilder::Place to, BlockId block) {
    parcels_.push_back({(to.rank - from.rank + plan_.ranks()) % plan_.ranks(), from, to, block});
  }

  /// What came in the round before.
  void fold() {
    std::vector<Held> const columns = std::exchange(columns_, {});
    for (Held& row : std::exchange(rows_, {})) {
      SlotId const state = plan_.acquire(row.rank, plan_.state_of(row.block));
      for (Held const& column : columns) {
        bool const folds = column.rank == row.rank && plan_.writes(row.rank);
        if (!folds || !plan_.meet(row.block, column.block)) continue;
        plan_.fold(row.rank, row.block, row.slot, column.block, column.slot, state);
      }
      SlotId const out = plan_.acquire(row.rank, plan_.out_of(row.block));
      plan_.finish(row.rank, row.block, state, out);
      plan_.release(row.rank, state);
      plan_.release(row.rank, row.slot);
      leaving_.push_back({std::move(row), out});
    }
    for (Held const& column : columns) plan_.release(column.rank, column.slot);
  }

  void send_outputs() {
    for (auto const& [rows, slot] : std::exchange(leaving_, {})) {
      for (Arrival const& arrival : rows.arrivals) {
        BlockId const out = plan_.out_of(arrival.block);
        send({rows.rank, slot, plan_.out_of(rows.block)}, {arrival.from, at_rest, out}, out);
      }
      plan_.release(rows.rank, slot);
    }
  }

  struct Parcel {
    int distance;
    PlanBuilder::Place from;
    PlanBuilder::Place to;
    BlockId block;
  };

  PlanBuilder& plan_;
  Mask const& mask_;
  Index kv_heads_;
  int stages_;
  std::vector<Held> rows_;  ///< to be folded in the next round
  std::vector<Held> columns_;
  std::vector<Leaving> leaving_;  ///< in the next round
  std::vector<Parcel> parcels_;   ///< of the round at hand
  Gathered gathered_;             ///< of the rank at hand
};

}  // namespace

Plan staged_ulysses_plan(Problem const& problem, Layouts const& layouts, std::string name, int stages,
                         Extent const& extent) {
  PlanBuilder plan(problem, layouts, std::move(name), extent);
  StagedUlysses(plan, problem, stages).write();
  return std::move(plan).done();
}

}  // namespace plait
