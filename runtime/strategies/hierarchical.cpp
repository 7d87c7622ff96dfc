// Hierarchical ring (pass-KV): an inner ring within each node, an outer ring between nodes. While a node's
// ranks pass a node's blocks round among themselves, each sends what it began with to its counterpart in the
// next node.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "grid.hpp"
#include "plait/plan_builder.hpp"
#include "strategies.hpp"

namespace plait {
namespace {

class DoubleRing {
 public:
  DoubleRing(PlanBuilder& plan, Grid grid)
      : plan_(plan), nodes_(grid.a), size_(grid.b), slots_(static_cast<std::size_t>(plan.ranks())) {
    for (int rank = 0; rank < plan.ranks(); ++rank) {
      if (!plan.writes(rank) && !plan.writes(beside(rank)) && !plan.writes(beyond(rank))) continue;
      sending_.push_back(rank);
      holding_.insert(holding_.end(), {rank, beside(rank), beyond(rank)});
    }
    holding_ = ascending(std::move(holding_));
  }

  /// In the outer step o, node n has the blocks of node n − o; in its inner step i, rank l of it those of
  /// rank l − i there. What arrives is folded in the round after.
  void write() {
    for (int outer = 0; outer < nodes_; ++outer) {
      for (int inner = 0; inner < size_; ++inner) {
        for (int const rank : sending_) step(rank, outer, inner);
        for (int const rank : holding_) {
          at(rank).held.swap(at(rank).passed);
          at(rank).passed.clear();
        }
        plan_.end_round();
      }
      for (int const rank : holding_) at(rank).first = at(rank).held = std::exchange(at(rank).next, {});
    }
  }

 private:
  [[nodiscard]] int node_of(int rank) const { return rank / size_; }
  [[nodiscard]] int rank_at(int node, int local) const {
    return (node + nodes_) % nodes_ * size_ + local % size_;
  }

  /// The next rank of the node, and its counterpart in the next node.
  [[nodiscard]] int beside(int rank) const { return rank_at(node_of(rank), rank % size_ + 1); }
  [[nodiscard]] int beyond(int rank) const { return rank_at(node_of(rank) + 1, rank % size_); }

  template <class T>
  static T& entry(std::vector<T>& by_block, BlockId id) {
    auto const index = static_cast<std::size_t>(id);
    if (by_block.size() <= index) by_block.resize(index + 1);
    return by_block[index];
  }

  /// How far a block must go.
  struct Reach {
    static constexpr int unknown = -1;
    int outer = unknown;  ///< the last outer step in which it is needed
    RankSet needs;        ///< the ranks that need it
  };
  Reach const& reach_of(BlockId kv) {
    Reach& reach = entry(reach_, kv);
    if (reach.outer != Reach::unknown) return reach;
    reach.needs = plan_.ranks_that_need(kv);
    int const node = node_of(plan_.block(kv).home);
    reach.outer = std::max(0, node_of(reach.needs.last_around({0, plan_.ranks()}, node * size_)) - node);
    return reach;
  }
  /// The last inner step of the outer one in which the block is needed: 0 if it is not.
  [[nodiscard]] int last_inner(Reach const& reach, int home, int outer) const {
    int const first = (node_of(home) + outer) % nodes_ * size_;
    int const start = first + home % size_;
    return std::max(0, reach.needs.last_around({first, first + size_}, start) - start);
  }

  /// The blocks that a rank holds in a step: of the rank there from which they came.
  void list_held(int rank, int outer, int inner, std::vector<BlockId>& blocks) {
    int const home = rank_at(node_of(rank) - outer, rank % size_ + size_ - inner);
    blocks.clear();
    for (BlockId const kv : plan_.kv_blocks(home)) {
      Reach const& reach = reach_of(kv);
      if (outer <= reach.outer && inner <= last_inner(reach, home, outer)) blocks.push_back(kv);
    }
  }

  /// A rank folds what it holds, passes it on within its node, and, in its turn, sends what it began with to
  /// the next node.
  void step(int rank, int outer, int inner) {
    list_held(rank, outer, inner, held_);
    auto const& blocks = held_;
    std::vector<SlotId>& slots = at(rank).held;
    slots.resize(blocks.size(), at_rest);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      for (BlockId const q : plan_.q_blocks(rank)) {
        if (plan_.meet(q, blocks[i])) plan_.fold_at_home(rank, q, blocks[i], slots[i]);
      }
      if (inner < last_inner(reach_of(blocks[i]), plan_.block(blocks[i]).home, outer)) {
        at(beside(rank)).passed.push_back(plan_.send(rank, slots[i], beside(rank), blocks[i]));
      }
      if (inner > 0) plan_.release(rank, slots[i]);
    }
    send_outside(rank, beyond(rank), outer, inner);
  }

  /// What the rank began with goes to its counterpart in the next node, in parts: one a round, so that all
  /// ports of a node are busy all the time, and a node sends no more a round than one rank's blocks.
  void send_outside(int rank, int beyond, int outer, int inner) {
    list_held(rank, outer, 0, first_);
    auto const& blocks = first_;
    std::vector<SlotId>& from = at(rank).first;
    from.resize(blocks.size(), at_rest);
    std::vector<SlotId>& to = at(beyond).next;
    std::size_t sent = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (outer >= reach_of(blocks[i]).outer) continue;
      if (inner == 0) to.push_back(plan_.acquire(beyond, blocks[i]));
      SlotId const there = to[sent++];
      auto const& parts = parts_of(blocks[i]);
      for (std::size_t part = 0; part < parts.size(); ++part) {
        auto const turn = static_cast<int>(part) * size_ / static_cast<int>(parts.size());
        if ((turn + rank) % size_ != inner) continue;
        plan_.send({rank, from[i], blocks[i]}, {beyond, there, blocks[i]}, parts[part]);
      }
    }
    if (inner + 1 == size_) {
      for (SlotId const slot : from) plan_.release(rank, slot);
    }
  }

  /// A block cut for its way between nodes: into as many parts as a node has ranks, of 64 tokens or more.
  std::vector<BlockId> const& parts_of(BlockId kv) {
    constexpr Index least_tokens = 64;
    auto& parts = entry(parts_, kv);
    if (!parts.empty()) return parts;
    Block const block = plan_.block(kv);
    Index const count = std::clamp<Index>(block.slice.size() / least_tokens, 1, size_);
    if (count == 1) return parts = {kv};
    for (Index part = 0; part < count; ++part) {
      Slice const slice{block.slice.begin + block.slice.size() * part / count,
                        block.slice.begin + block.slice.size() * (part + 1) / count};
      parts.push_back(plan_.add_kv(slice, block.heads, block.home));
    }
    return parts;
  }

  /// Where a rank has blocks, in the order of list_held; nothing there: at rest.
  struct Slots {
    std::vector<SlotId> held;    ///< in this round
    std::vector<SlotId> passed;  ///< in the next, within the outer step
    std::vector<SlotId> first;   ///< since the outer step began
    std::vector<SlotId> next;    ///< when the next outer step begins
  };
  Slots& at(int rank) { return slots_[static_cast<std::size_t>(rank)]; }

  PlanBuilder& plan_;
  int nodes_;
  int size_;  ///< ranks of a node
  std::vector<Slots> slots_;
  std::vector<int> sending_;                 ///< ranks that are written, or send to those
  std::vector<int> holding_;                 ///< those, and the ranks that they send to
  std::vector<BlockId> held_;                ///< of the rank at hand, in this round
  std::vector<BlockId> first_;               ///< when the outer step began
  std::vector<Reach> reach_;                 ///< by block, once asked for
  std::vector<std::vector<BlockId>> parts_;  ///< by block, once asked for
};

}  // namespace

Plan hierarchical_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments,
                       Extent const& extent) {
  int const ranks = layouts.q.ranks();
  if (arguments.empty()) {
    throw InvalidProblem(
        "strategy 'hierarchical': the nodes are not known; give NODESxRANKS, as in hierarchical:2x8");
  }
  std::string const name = fmt::format("hierarchical:{}", arguments);
  Grid const grid = parse_grid(name, arguments);
  if (grid.a * grid.b != ranks) {
    throw InvalidProblem(
        fmt::format("strategy '{}': the grid has {} ranks, not {}", name, grid.a * grid.b, ranks));
  }
  PlanBuilder plan(problem, layouts, name, extent);
  DoubleRing(plan, grid).write();
  return std::move(plan).finish_at_home();
}

std::vector<std::string> hierarchical_variants(Problem const&, Group const& group) {
  int const size = group.ranks_per_node;
  bool const nodes = size > 1 && size < group.ranks && group.ranks % size == 0;
  if (!nodes) return {"hierarchical"};
  return {fmt::format("hierarchical:{}x{}", group.ranks / size, size)};
}

}  // namespace plait
