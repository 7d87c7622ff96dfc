// Which slices of a token axis each rank owns at rest. The same value on every rank.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "plait/mask.hpp"
#include "plait/rank_set.hpp"
#include "plait/slice.hpp"

namespace plait {

/// Every token position belongs to exactly one rank. A rank's local rows are its slices one after the other;
/// ranks may own nothing. Immutable: copies share what they hold.
class Layout {
 public:
  /// Rank r owns the r-th of `ranks` pieces whose sizes differ by at most one.
  [[nodiscard]] static Layout contiguous(Index tokens, int ranks);
  /// Rank r owns chunks r and 2P−1−r of 2P: under a causal mask every rank keeps the same area.
  [[nodiscard]] static Layout zigzag(Index tokens, int ranks);
  /// Query slices with equal kept area *and* equal token counts on every rank, for any mask (up to one row).
  /// A necklace of two measures is cut 2(P−1) times: for a window of 1/P of the tokens there is a position on
  /// the (circular) axis where it holds 1/P of the area, by the intermediate value theorem; take it, close
  /// the gap, go on with P−1. @see N. Alon, Splitting necklaces, 1987
  [[nodiscard]] static Layout balanced(Mask const& mask, int ranks);
  /// Rank 0 owns everything, as the root of MPI's collectives does: few queries, which are then folded
  /// together wherever they go.
  [[nodiscard]] static Layout root(Index tokens, int ranks);
  /// @throws InvalidProblem unless the slices cover [0, tokens) exactly once
  [[nodiscard]] static Layout from_slices(Index tokens, std::vector<std::vector<Slice>> slices);

  [[nodiscard]] Index tokens() const { return tokens_; }
  [[nodiscard]] int ranks() const { return static_cast<int>(parts_->slices.size()); }
  /// The slices that `rank` owns, none empty, in ascending order.
  [[nodiscard]] std::vector<Slice> const& slices(int rank) const {
    return parts_->slices[static_cast<std::size_t>(rank)];
  }
  /// Tokens that `rank` owns.
  [[nodiscard]] Index tokens(int rank) const;
  /// Local row of the first token of a slice that lies within one of the rank's slices.
  [[nodiscard]] Index local_row(int rank, Index position) const;
  /// The ranks that own any token of the ranges.
  [[nodiscard]] RankSet owners(std::vector<Slice> const& ranges) const;

  friend bool operator==(Layout const& a, Layout const& b) {
    return a.tokens_ == b.tokens_ && (a.parts_ == b.parts_ || a.parts_->slices == b.parts_->slices);
  }

 private:
  Layout(Index tokens, std::vector<std::vector<Slice>> slices);

  /// A slice, in the order of the tokens; `run` is the first slice after it whose owner does not follow, or
  /// precede, the owner before, as all since it do.
  struct Owned {
    Slice slice;
    int rank;
    std::size_t run;
  };
  struct Parts {
    std::vector<std::vector<Slice>> slices;  ///< by rank
    std::vector<Owned> owned;
  };

  Index tokens_ = 0;
  std::shared_ptr<Parts const> parts_;
};

/// Where queries (and outputs) and keys/values lie at rest.
struct Layouts {
  Layout q;
  Layout kv;
  friend bool operator==(Layouts const&, Layouts const&) = default;
};

/// Layouts by name: contiguous, zigzag, balanced, root, or auto (contiguous where it is balanced within 1%,
/// else zigzag where that is, else balanced). Keys follow the queries' layout when the mask is square, unless
/// that is root, else they are spread contiguously. @throws InvalidProblem on an unknown name
[[nodiscard]] Layouts make_layouts(std::string_view name, Mask const& mask, int ranks);

/// The pairs that the mask keeps of a rank's queries.
[[nodiscard]] double kept_pairs(Mask const& mask, Layout const& q, int rank);

/// Largest kept area of a rank over the mean; 1 = perfectly balanced, and for a mask that keeps nothing.
[[nodiscard]] double imbalance(Mask const& mask, Layout const& q);

}  // namespace plait
