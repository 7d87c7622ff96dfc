#include "staged_ulysses.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "exchange.hpp"
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
      : plan_(plan),
        parcels_(plan),
        mask_(problem.mask),
        kv_heads_(problem.shape.kv_heads),
        stages_(stages) {}

  void write() {
    finish_rows_without_keys(plan_, mask_);
    for (int round = 0; round < stages_ + 2; ++round) {
      send_outputs();
      fold();
      if (round < stages_) exchange(round);
      parcels_.send();
      plan_.end_round();
    }
  }

 private:
  /// Those of a rank in a stage.
  [[nodiscard]] HeadRange heads_of(int rank, int stage) const {
    return share_of_heads(share_of_heads({0, kv_heads_}, rank, plan_.ranks()), stage, stages_);
  }
  /// Whether the mask keeps any pair of a block: others need not travel.
  [[nodiscard]] bool sees_a_key(Slice q) const { return mask_.meets(q, {0, mask_.kv_tokens()}); }
  [[nodiscard]] bool is_seen(Slice kv) const { return mask_.meets({0, mask_.q_tokens()}, kv); }

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
      parcels_.add({from, at_rest, block}, {to, into.slot, into.block}, block);
    }
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
        parcels_.add({rows.rank, slot, plan_.out_of(rows.block)}, {arrival.from, at_rest, out}, out);
      }
      plan_.release(rows.rank, slot);
    }
  }

  PlanBuilder& plan_;
  Parcels parcels_;  ///< of the round at hand
  Mask const& mask_;
  Index kv_heads_;
  int stages_;
  std::vector<Held> rows_;  ///< to be folded in the next round
  std::vector<Held> columns_;
  std::vector<Leaving> leaving_;  ///< in the next round
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
