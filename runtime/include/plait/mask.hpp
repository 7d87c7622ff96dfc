// Which (query, key) pairs take part: a set of disjoint bands. Masks compose by intersection.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "plait/band.hpp"

namespace plait {

/// A problem, mask or layout that cannot be: the message names the thing, the value, and what would be
/// accepted.
class InvalidProblem : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// Immutable set of disjoint bands (copies share them) over q_tokens × kv_tokens. With j = k − q − (kv_tokens
/// − q_tokens), the diagonal j = 0 ends at the last query and the last key ("bottom-right aligned").
class Mask {
 public:
  [[nodiscard]] static Mask full(Index q_tokens, Index kv_tokens);
  /// Keeps j ≤ 0.
  [[nodiscard]] static Mask causal(Index q_tokens, Index kv_tokens);
  /// Keeps −left ≤ j ≤ right; −1 = unbounded on that side. @throws InvalidProblem below −1
  [[nodiscard]] static Mask window(Index q_tokens, Index kv_tokens, Index left, Index right);
  /// Packed sequences: a token sees the tokens of its own document; the sequence has Σ lengths tokens.
  /// Documents of no tokens are allowed. @throws InvalidProblem on a negative length
  [[nodiscard]] static Mask documents(std::span<Index const> lengths);
  /// `kept` [⌈q_tokens/block_size⌉, ⌈kv_tokens/block_size⌉], row-major; non-zero keeps the block. Runs of
  /// kept blocks along a row become one band. @throws InvalidProblem if the counts do not match
  [[nodiscard]] static Mask blocks(Index q_tokens, Index kv_tokens, Index block_size,
                                   std::span<std::uint8_t const> kept);
  /// @throws InvalidProblem if bands overlap (naming the two) or leave q_tokens × kv_tokens
  [[nodiscard]] static Mask from_bands(Index q_tokens, Index kv_tokens, std::vector<Band> bands);

  /// Pairs that both keep. @throws InvalidProblem if the token counts differ
  [[nodiscard]] Mask intersect(Mask const& other) const;

  [[nodiscard]] Index q_tokens() const { return q_tokens_; }
  [[nodiscard]] Index kv_tokens() const { return kv_tokens_; }
  /// Non-empty, tight, disjoint, sorted by (q.begin, kv.begin, lo).
  [[nodiscard]] std::span<Band const> bands() const { return data_->bands; }

  /// The bands that meet q × kv, cut to it and tightened.
  [[nodiscard]] std::vector<Band> restricted(Slice q, Slice kv) const;
  /// Kept pairs in q × kv, exact; no loop over tokens.
  [[nodiscard]] Index area(Slice q, Slice kv) const;
  [[nodiscard]] Index area() const { return area({0, q_tokens_}, {0, kv_tokens_}); }
  [[nodiscard]] bool keeps(Index q, Index k) const;
  /// Whether any pair in q × kv is kept: area(q, kv) > 0, at less cost.
  [[nodiscard]] bool meets(Slice q, Slice kv) const;

  /// Ranges, in no order, whose union is the keys that any of the queries keeps, and the queries that keep
  /// any of the keys.
  [[nodiscard]] std::vector<Slice> keys_of(Slice q) const;
  [[nodiscard]] std::vector<Slice> queries_of(Slice kv) const;

  friend bool operator==(Mask const& a, Mask const& b) {
    return a.q_tokens_ == b.q_tokens_ && a.kv_tokens_ == b.kv_tokens_ && a.data_->bands == b.data_->bands;
  }

 private:
  Mask(Index q_tokens, Index kv_tokens, std::vector<Band> bands);

  /// Calls `use(band)` for each band whose queries meet `q`.
  template <class Use>
  void for_each_meeting(Slice q, Use&& use) const;

  Index q_tokens_ = 0;
  Index kv_tokens_ = 0;
  struct Data {
    std::vector<Band> bands;
    std::vector<Index> reach;            ///< reach[i] = max q.end of bands[0..i]: where a search may start
    std::vector<std::uint32_t> by_keys;  ///< indices of bands, in the order of kv.begin
    std::vector<Index> keys_reach;       ///< as reach, in that order: of kv.end
  };
  std::shared_ptr<Data const> data_;
};

}  // namespace plait
