// What strategies write plans with: blocks per rank, slots that are reused, steps round by round.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plait/lists.hpp"
#include "plait/plan.hpp"

namespace plait {

/// Where the `piece`-th of so many pieces of a slice begins; with `piece` = `pieces`, where the slice ends.
/// Long pieces are whole numbers of 128 tokens, which fit every fold's tiles, and those of middle length
/// whole numbers of 32, which fit a CPU's.
[[nodiscard]] Index cut_of(Slice slice, Index piece, Index pieces);

/// How often a rank's key/value blocks are cut, so that a plan in which they travel has some rounds even for
/// few ranks: the first fold of a block then waits for a piece of it, not for all, and slots hold pieces.
/// About 8 rounds for slices of up to 4,096 tokens, 2 at 8,192, and from 16,384 on blocks are not cut: on two
/// GPUs the cuts of such slices cost 7% and hid nothing. 1 from 9 ranks on. No piece has fewer than 64
/// tokens: too little work for a fold.
/// @param asked  so many pieces then, if there are other ranks, as far as they have 64 tokens; 0: as said
[[nodiscard]] Index pieces_to_travel(Layout const& kv, Index asked = 0);
/// The same of slices that have so many tokens.
[[nodiscard]] Index pieces_to_travel(Index tokens, int ranks);

/// Builds a plan in rounds, all ranks side by side. Slots are virtual until `finish`: a free one is reused
/// whatever its size, and ends as large as the largest block it held.
class PlanBuilder {
 public:
  /// @param extent     steps of ranks whose programs are not written are dropped
  /// @param kv_pieces  into how many key/value blocks each slice at rest is cut, at most: none of fewer than
  /// 64 tokens unless the slice is shorter
  PlanBuilder(Problem const& problem, Layouts const& layouts, std::string strategy, Extent const& extent = {},
              Index kv_pieces = 1);

  [[nodiscard]] int ranks() const { return plan_.layouts.q.ranks(); }
  [[nodiscard]] Layouts const& layouts() const { return plan_.layouts; }
  /// Whether the program of `rank` is written: a strategy may leave out what no such rank takes part in.
  [[nodiscard]] bool writes(int rank) const { return at(nth_written_, rank) != none; }
  [[nodiscard]] bool writes_all() const { return written_.size() == nth_written_.size(); }
  /// The ranks whose programs are written, ascending.
  [[nodiscard]] std::vector<int> const& written() const { return written_; }
  /// The ranks, ascending, that are written, or are so many before one that is: all that a step between ranks
  /// of that distance matters to.
  [[nodiscard]] std::vector<int> written_or_before(int distance) const;
  [[nodiscard]] Block const& block(BlockId id) const { return plan_.block(id); }
  /// The query blocks of a rank: one per slice of its layout, all heads. Unless all programs are written, the
  /// blocks of a rank are listed when they are first asked for.
  [[nodiscard]] std::span<BlockId const> q_blocks(int rank) {
    if (at(q_lists_, rank) == none) list_q_blocks(rank);
    return q_blocks_[static_cast<std::size_t>(at(q_lists_, rank))];
  }
  /// The key/value blocks of a rank: the `piece`-th of each slice, all heads.
  [[nodiscard]] std::span<BlockId const> kv_blocks(int rank, Index piece = 0) {
    if (at(kv_lists_, rank) == none) list_kv_blocks(rank);
    return kv_blocks_[static_cast<std::size_t>(at(kv_lists_, rank) + piece)];
  }
  /// The state block, and the out block, of the rows of query block `q`.
  [[nodiscard]] BlockId state_of(BlockId q) const { return q + 1; }
  [[nodiscard]] BlockId out_of(BlockId q) const { return q + 2; }

  /// A query block, with its state and out blocks, or a key/value block, besides those that a rank owns
  /// whole.
  /// @param home  or Block::gathered
  BlockId add_q(Slice slice, HeadRange heads, int home);
  BlockId add_kv(Slice slice, HeadRange heads, int home);

  /// How many pairs of the two blocks the mask keeps.
  [[nodiscard]] Index pairs(BlockId q, BlockId kv) const;
  /// Whether the mask keeps any pair of the two blocks; of the block and anything that `rank` owns at rest.
  [[nodiscard]] bool meet(BlockId q, BlockId kv) const;
  [[nodiscard]] bool rank_needs(int rank, BlockId kv) const;
  [[nodiscard]] bool rank_serves(int rank, BlockId q) const;
  /// The ranks of which that is true.
  [[nodiscard]] RankSet ranks_that_need(BlockId kv) const;
  [[nodiscard]] RankSet ranks_that_serve(BlockId q) const;

  /// A slot of `rank` that nothing uses in this round, for `block`; at_rest if its program is not written.
  [[nodiscard]] SlotId acquire(int rank, BlockId block);
  /// The slot's content is not needed after this round.
  void release(int rank, SlotId slot);

  /// Sends a block in this round; returns the slot of `to` that holds it from the next round on.
  SlotId send(int from, SlotId from_slot, int to, BlockId block);
  /// One end of a transfer of a piece of a block: its slot, laid out as block `whole`.
  struct Place {
    int rank;
    SlotId slot;
    BlockId whole;
  };
  /// Sends a block in this round from one place to another.
  void send(Place from, Place to, BlockId block);
  /// Folds into the state in slot `state`, from the identity if nothing was folded or merged into it before.
  void fold(int rank, BlockId q, SlotId q_slot, BlockId kv, SlotId kv_slot, SlotId state);
  /// Folds into the rank's own state of `q`, which it keeps until the end.
  void fold_at_home(int rank, BlockId q, BlockId kv, SlotId kv_slot);
  /// Merges the state in slot `from` into the rank's own state of `q`, which it keeps until the end.
  void merge_at_home(int rank, BlockId q, SlotId from);
  /// Merges the state of `q` in slot `from` into slot `into`, from the identity if nothing is there.
  void merge(int rank, BlockId q, SlotId from, SlotId into);
  /// Merges all ranks' states of `q` into its home's own, which that keeps until the end. By rank: the slot
  /// of its part, or at_rest if it has none; the home's own part is the state that it keeps. The round's
  /// reductions are added in the order of their homes, and are all that is in it.
  void reduce_at_home(BlockId q, std::vector<SlotId> const& parts);
  /// Finishes the state of `q` in slot `from` (at_rest if it has no key) to `into`.
  void finish(int rank, BlockId q, SlotId from, SlotId into);
  /// Throws what Watch::after_round does.
  void end_round();

  /// Whether anyone listens.
  [[nodiscard]] bool foretells() const { return static_cast<bool>(watch_.foretold); }
  /// Before the first round: tells of the sends, from and to places at rest, and forgets them and all blocks
  /// that have been added since there were so many. Throws what Watch::foretold does.
  void foretell(std::size_t blocks);
  [[nodiscard]] std::size_t blocks() const { return plan_.blocks.size(); }

  /// The plan, without the rounds in which no rank that is written has a step.
  [[nodiscard]] Plan done() &&;
  /// The same, with all blocks of `q_blocks` finished at home in the last round, or after its reductions; if
  /// not all programs are written, only where that round is certain to be the whole plan's last.
  [[nodiscard]] Plan finish_at_home() &&;

 private:
  [[nodiscard]] HeadRange all_heads() const { return {0, plan_.problem.shape.kv_heads}; }
  void list_q_blocks(int rank);
  void list_kv_blocks(int rank);
  struct Slot {
    std::uint64_t bytes = 0;
    bool holds_state = false;  ///< a fold or merge of this plan has written it since it was acquired
  };
  /// Free slots of one size; there may be none.
  struct FreeSlots {
    std::uint64_t bytes;
    std::vector<SlotId> heap;  ///< the smallest number first
  };
  struct RankState {
    std::vector<Slot> slots;
    std::vector<FreeSlots> free;   ///< by bytes
    std::vector<SlotId> released;  ///< in this round
    [[nodiscard]] FreeSlots* best_free(std::uint64_t bytes);
    void add_free(std::uint64_t bytes, SlotId slot);
  };

  template <class T>
  static T& at(std::vector<T>& of, int rank) {
    return of[static_cast<std::size_t>(rank)];
  }
  template <class T>
  static T const& at(std::vector<T> const& of, int rank) {
    return of[static_cast<std::size_t>(rank)];
  }
  /// Of a rank that is written.
  RankState& rank_state(int rank) { return at(rank_states_, at(nth_written_, rank)); }
  Slot& slot(int rank, SlotId id) { return rank_state(rank).slots[static_cast<std::size_t>(id)]; }
  BlockId add(Tensor tensor, Slice slice, HeadRange heads, int home);
  SlotId home_state(int rank, BlockId q);
  void drop_empty_rounds();
  Start start_of(int rank, SlotId state);

  static constexpr int none = -1;

  Plan plan_;
  std::vector<int> written_;
  std::vector<int> nth_written_;  ///< by rank: where it is in that list, or none
  Watch watch_;
  Index kv_pieces_;
  Lists<BlockId> q_blocks_;
  Lists<BlockId> kv_blocks_;               ///< a list for each piece
  std::vector<int> q_lists_;               ///< by rank: which list is its, or none
  std::vector<int> kv_lists_;              ///< by rank: which list is that of its first piece, or none
  std::vector<SlotId> home_states_;        ///< by query block: the slot of its state at home, or at_rest
  std::vector<RankState> rank_states_;     ///< of ranks that are written
  std::vector<std::vector<BlockId>> cut_;  ///< by piece, of the rank that is being listed
};

}  // namespace plait
