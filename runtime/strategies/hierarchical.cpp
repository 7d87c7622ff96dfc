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

/// The blocks of one rank that are on their way, and where they are on the rank that has them now.
struct Load {
  std::vector<BlockId> blocks;
  std::vector<SlotId> slots;
};

class DoubleRing {
 public:
  DoubleRing(PlanBuilder& plan, Grid grid) : plan_(plan), nodes_(grid.a), size_(grid.b) {}

  /// In the outer step o, node n has the blocks of node n − o; in its inner step i, rank l of it those of
  /// rank l − i there. What arrives is folded in the round after.
  void write() {
    std::vector<Load> first(
        static_cast<std::size_t>(plan_.ranks()));  // by rank: what it began the outer step with
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      auto const& blocks = plan_.kv_blocks(rank);
      first[static_cast<std::size_t>(rank)] = {blocks, std::vector<SlotId>(blocks.size(), at_rest)};
    }
    for (int outer = 0; outer < nodes_; ++outer) {
      std::vector<Load> next(first.size());
      std::vector<Load> held = first;
      for (int inner = 0; inner < size_; ++inner) {
        held = step(outer, inner, first, held, next);
        plan_.end_round();
      }
      first = std::move(next);
    }
  }

 private:
  [[nodiscard]] int node_of(int rank) const { return rank / size_; }
  [[nodiscard]] int rank_at(int node, int local) const {
    return (node + nodes_) % nodes_ * size_ + local % size_;
  }

  template <class T>
  static T& entry(std::vector<T>& by_block, BlockId id) {
    auto const index = static_cast<std::size_t>(id);
    if (by_block.size() <= index) by_block.resize(index + 1);
    return by_block[index];
  }

  /// How far a block must go: between nodes, and within each node after its home's.
  struct Reach {
    int outer = 0;           ///< the last outer step in which it is needed
    std::vector<int> inner;  ///< by outer step: the last inner step in which it is needed
  };
  Reach const& reach_of(BlockId kv) {
    Reach& reach = entry(reach_, kv);
    if (!reach.inner.empty()) return reach;
    reach.inner.assign(static_cast<std::size_t>(nodes_), 0);
    int const home = plan_.block(kv).home;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      if (!plan_.rank_needs(rank, kv)) continue;
      int const outer = (node_of(rank) - node_of(home) + nodes_) % nodes_;
      int const inner = (rank - home + plan_.ranks()) % size_;
      reach.outer = std::max(reach.outer, outer);
      int& last = reach.inner[static_cast<std::size_t>(outer)];
      last = std::max(last, inner);
    }
    return reach;
  }
  [[nodiscard]] bool needed_inside(BlockId kv, int outer, int inner) {
    return inner < reach_of(kv).inner[static_cast<std::size_t>(outer)];
  }
  [[nodiscard]] bool needed_outside(BlockId kv, int outer) { return outer < reach_of(kv).outer; }

  /// One round: every rank folds what it holds, passes it on within its node, and, in its turn, sends what it
  /// began with to the next node. @returns what the ranks hold in the next round
  std::vector<Load> step(int outer, int inner, std::vector<Load> const& first, std::vector<Load> const& held,
                         std::vector<Load>& next) {
    std::vector<Load> passed(held.size());
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      auto const index = static_cast<std::size_t>(rank);
      Load const& load = held[index];
      int const beside = rank_at(node_of(rank), rank % size_ + 1);
      for (std::size_t i = 0; i < load.blocks.size(); ++i) {
        BlockId const kv = load.blocks[i];
        for (BlockId const q : plan_.q_blocks(rank)) {
          if (plan_.meet(q, kv)) plan_.fold_at_home(rank, q, kv, load.slots[i]);
        }
        if (needed_inside(kv, outer, inner)) {
          Load& there = passed[static_cast<std::size_t>(beside)];
          there.blocks.push_back(kv);
          there.slots.push_back(plan_.send(rank, load.slots[i], beside, kv));
        }
        if (inner > 0) plan_.release(rank, load.slots[i]);
      }
      send_outside(outer, inner, rank, first[index], next);
    }
    return passed;
  }

  /// What the rank began with goes to its counterpart in the next node, in parts: one a round, so that all
  /// ports of a node are busy all the time, and a node sends no more a round than one rank's blocks.
  void send_outside(int outer, int inner, int rank, Load const& load, std::vector<Load>& next) {
    int const beyond = rank_at(node_of(rank) + 1, rank % size_);
    Load& there = next[static_cast<std::size_t>(beyond)];
    if (inner == 0) {
      for (BlockId const kv : load.blocks) {
        if (!needed_outside(kv, outer)) continue;
        there.blocks.push_back(kv);
        there.slots.push_back(plan_.acquire(beyond, kv));
      }
    }
    for (std::size_t to = 0, from = 0; to < there.blocks.size(); ++to, ++from) {
      while (load.blocks[from] != there.blocks[to]) ++from;
      BlockId const kv = load.blocks[from];
      auto const& parts = parts_of(kv);
      for (std::size_t part = 0; part < parts.size(); ++part) {
        auto const turn = static_cast<int>(part) * size_ / static_cast<int>(parts.size());
        if ((turn + rank) % size_ != inner) continue;
        plan_.send({rank, load.slots[from], kv}, {beyond, there.slots[to], kv}, parts[part]);
      }
    }
    if (inner + 1 == size_) {
      for (SlotId const slot : load.slots) plan_.release(rank, slot);
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

  PlanBuilder& plan_;
  int nodes_;
  int size_;  ///< ranks of a node
  std::vector<Reach> reach_;                 ///< by block, once asked for
  std::vector<std::vector<BlockId>> parts_;  ///< by block, once asked for
};

}  // namespace

Plan hierarchical_plan(Problem const& problem, Layouts const& layouts, std::string_view arguments) {
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
  PlanBuilder plan(problem, layouts, name);
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
