// A plan: who computes and who sends what, when. A value: made by a strategy, read by verify, bytes,
// simulate, draw and the executor.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "plait/device.hpp"
#include "plait/layout.hpp"
#include "plait/problem.hpp"

namespace plait {

/// Half-open range of key/value heads; a group of query heads follows its key/value head.
struct HeadRange {
  Index begin = 0;
  Index end = 0;
  [[nodiscard]] constexpr Index size() const { return end - begin; }
  [[nodiscard]] constexpr bool contains(HeadRange other) const {
    return begin <= other.begin && other.end <= end;
  }
  friend constexpr bool operator==(HeadRange, HeadRange) = default;
};

/// What a block is a piece of. `kv` is the keys, then the values; `state` is m, then l, then O; `out` is the
/// output, then the lse: rows that are finished away from home.
enum class Tensor : std::uint8_t { q, kv, state, out };
[[nodiscard]] std::string_view name(Tensor tensor);

/// A named piece of a tensor: all batch entries of the tokens in `slice`, for `heads`. `home` is the rank
/// whose layout owns the rows, or `gathered` if they are the rows of several ranks. A state or out block has
/// the slice and heads of the query block whose rows it describes.
struct Block {
  static constexpr int gathered = -1;

  Tensor tensor = Tensor::q;
  Slice slice;
  HeadRange heads;
  int home = 0;
  /// Whether it is a piece, or all, of `whole`.
  [[nodiscard]] constexpr bool within(Block const& whole) const {
    return tensor == whole.tensor && heads == whole.heads && whole.slice.contains(slice);
  }
  friend constexpr bool operator==(Block const&, Block const&) = default;
};
using BlockId = std::int32_t;

/// Bytes of a block on the wire and in a slot.
[[nodiscard]] std::uint64_t bytes(Block const& block, Shape const& shape);
/// "kv [0, 512) of rank 3".
[[nodiscard]] std::string describe(Block const& block);

/// A place in a rank's memory: `at_rest` is the caller's own tensor (an input, or the output), otherwise an
/// index of Program::slots.
using SlotId = std::int32_t;
inline constexpr SlotId at_rest = -1;

/// One block to (send) or from (receive) `peer`; `slot` is where it is read or written on this rank. The slot
/// is laid out as block `whole`: `block` itself, or one that it is a piece of. A rank that is its own peer
/// copies.
struct Transfer {
  std::int32_t peer = 0;
  BlockId block = 0;
  SlotId slot = at_rest;
  BlockId whole = 0;
  friend constexpr bool operator==(Transfer const&, Transfer const&) = default;
};

/// state ← (identity or state) ⊕ attention(q, kv) under the mask.
struct Fold {
  BlockId q = 0;
  SlotId q_slot = at_rest;
  BlockId kv = 0;
  SlotId kv_slot = at_rest;
  SlotId state = 0;
  Start start = Start::carried;
  friend constexpr bool operator==(Fold const&, Fold const&) = default;
};

/// into ← (identity or into) ⊕ from; both hold the state of block `state`.
struct Merge {
  BlockId state = 0;
  SlotId from = 0;
  SlotId into = 0;
  Start start = Start::carried;
  friend constexpr bool operator==(Merge const&, Merge const&) = default;
};

/// All ranks' states of block `state` become one at the block's home, in one collective of all ranks: the
/// reductions of a round, which every rank lists alike, in the order of their homes. `from` holds this rank's
/// part (at_rest: the identity); at home, `into` holds the merge of all parts afterwards, and is at_rest
/// elsewhere. A round with reductions has nothing else in it.
struct Reduction {
  BlockId state = 0;
  SlotId from = at_rest;
  SlotId into = at_rest;
  friend constexpr bool operator==(Reduction const&, Reduction const&) = default;
};

/// out ← finish(state): the final state of block `state`, in slot `from` (at_rest if its rows see no key at
/// all), is rounded to block `out`, in slot `into` (at_rest: the caller's own output).
struct Finish {
  BlockId state = 0;
  SlotId from = at_rest;
  BlockId out = 0;
  SlotId into = at_rest;
  friend constexpr bool operator==(Finish const&, Finish const&) = default;
};

/// The transfers in flight while these steps run: all folds in order, then all merges, then all finishes.
/// What a round receives can be used from the next round on.
struct Round {
  std::span<Transfer const> sends;
  std::span<Transfer const> receives;
  std::span<Fold const> folds;
  std::span<Merge const> merges;
  std::span<Finish const> finishes;
  std::span<Reduction const> reductions;
};

/// One rank's rounds. Steps of one kind lie in one array, cut by round: a plan of 4,096 ranks has tens of
/// millions of them.
struct Program {
  struct Cut {
    std::uint32_t sends = 0, receives = 0, folds = 0, merges = 0, finishes = 0, reductions = 0;
    friend constexpr bool operator==(Cut const&, Cut const&) = default;
  };
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  std::vector<Fold> folds;
  std::vector<Merge> merges;
  std::vector<Finish> finishes;
  std::vector<Reduction> reductions;
  std::vector<Cut> ends;             ///< ends[r]: where round r's steps end in each array
  std::vector<std::uint64_t> slots;  ///< bytes of each slot

  [[nodiscard]] std::size_t rounds() const { return ends.size(); }
  [[nodiscard]] Round round(std::size_t index) const;
  friend bool operator==(Program const&, Program const&) = default;
};

struct Plan {
  Problem problem;
  Layouts layouts;
  std::string strategy;  ///< as it was asked for: "ring", "mesh:2x4"
  std::vector<Block> blocks;
  std::vector<Program> programs;  ///< one per rank, all with the same number of rounds

  [[nodiscard]] int ranks() const { return static_cast<int>(programs.size()); }
  [[nodiscard]] std::size_t rounds() const { return programs.empty() ? 0 : programs.front().rounds(); }
  [[nodiscard]] Block const& block(BlockId id) const { return blocks[static_cast<std::size_t>(id)]; }
};

/// Sees a plan while it is written. What it throws ends the writing.
struct Watch {
  /// Before anything is written, perhaps: a plan of one round with no more than what the ranks whose programs
  /// are written will send and receive in all.
  std::function<void(Plan const&)> foretold = {};
  std::function<void(Plan const&)> after_round = {};
};

/// What is written of a plan.
struct Extent {
  std::span<int const> ranks = {};  ///< whose programs; none: all
  Watch watch = {};
};

}  // namespace plait
