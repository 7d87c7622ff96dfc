#include "plait/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <utility>

namespace plait {
namespace {

void require_ranks(int ranks) {
  if (ranks < 1) throw InvalidProblem(fmt::format("{} ranks: must be at least 1", ranks));
}

/// Where the `part`-th of `parts` nearly equal pieces of [0, tokens) begins; the first pieces get the
/// remainder.
Index piece_begin(Index tokens, Index parts, Index part) {
  return part * (tokens / parts) + std::min(part, tokens % parts);
}

/// Sorted, empty slices dropped, neighbours joined.
std::vector<Slice> normalised(std::vector<Slice> slices) {
  std::ranges::sort(slices, {}, &Slice::begin);
  std::vector<Slice> joined;
  for (Slice const slice : slices) {
    if (slice.empty()) continue;
    if (!joined.empty() && joined.back().end == slice.begin) {
      joined.back().end = slice.end;
    } else {
      joined.push_back(slice);
    }
  }
  return joined;
}

/// What is left of the token axis while ranks are given their windows, seen as a circle without gaps.
class Circle {
 public:
  Circle(Mask const& mask, Index tokens) : mask_(&mask), pieces_{{0, tokens}}, tokens_(tokens) {}

  [[nodiscard]] Index tokens() const { return tokens_; }

  [[nodiscard]] double area(Index start, Index length) const {
    double sum = 0.0;
    for (Slice const slice : window(start, length)) {
      sum += static_cast<double>(mask_->area(slice, {0, mask_->kv_tokens()}));
    }
    return sum;
  }

  /// The slices under the window of `length` tokens that begins `start` tokens along the circle.
  [[nodiscard]] std::vector<Slice> window(Index start, Index length) const {
    std::vector<Slice> found;
    collect({start, std::min(start + length, tokens_)}, found);
    collect({0, start + length - tokens_}, found);
    return found;
  }

  void remove(Index start, Index length) {
    std::vector<Slice> rest;
    if (start + length <= tokens_) {
      collect({0, start}, rest);
      collect({start + length, tokens_}, rest);
    } else {
      collect({start + length - tokens_, start}, rest);
    }
    pieces_ = std::move(rest);
    tokens_ -= length;
  }

 private:
  void collect(Slice window, std::vector<Slice>& found) const {
    Index at = 0;
    for (Slice const piece : pieces_) {
      Slice const part = intersect(window, {at, at + piece.size()});
      if (!part.empty()) found.push_back({piece.begin + part.begin - at, piece.begin + part.end - at});
      at += piece.size();
    }
  }

  Mask const* mask_;
  std::vector<Slice> pieces_;
  Index tokens_;
};

/// Start of the window of `length` tokens whose area is nearest to `target`. The windows that begin at
/// multiples of `length` go round the circle; where two neighbours lie on both sides of the target, one
/// between them meets it.
Index window_of_area(Circle const& circle, Index length, double target) {
  auto const excess = [&](Index start) { return circle.area(start, length) - target; };
  Index best = 0;
  double best_excess = excess(0);
  auto const offer = [&](Index start, double value) {
    if (std::abs(value) < std::abs(best_excess)) std::tie(best, best_excess) = std::pair(start, value);
  };
  Index low = 0;
  double low_excess = best_excess;
  for (Index start = length; best_excess != 0.0 && start < circle.tokens(); start += length) {
    double const value = excess(start);
    offer(start, value);
    if ((low_excess < 0.0) == (value < 0.0)) {
      std::tie(low, low_excess) = std::pair(start, value);
      continue;
    }
    Index high = start;
    while (high - low > 1) {
      Index const middle = std::midpoint(low, high);
      double const between = excess(middle);
      offer(middle, between);
      if ((between < 0.0) == (low_excess < 0.0)) {
        low = middle;
      } else {
        high = middle;
      }
    }
    break;
  }
  return best;
}

}  // namespace

Layout::Layout(Index tokens, std::vector<std::vector<Slice>> slices) : tokens_(tokens) {
  Parts parts{.slices = std::move(slices), .owned = {}};
  for (std::size_t rank = 0; rank < parts.slices.size(); ++rank) {
    parts.slices[rank] = normalised(std::move(parts.slices[rank]));
    for (Slice const slice : parts.slices[rank]) parts.owned.push_back({slice, static_cast<int>(rank), 0});
  }
  auto& owned = parts.owned;
  std::ranges::sort(owned, {}, [](Owned const& one) { return one.slice.begin; });
  for (std::size_t i = owned.size(); i-- > 0;) {
    owned[i].run = i + 1;
    if (i + 1 == owned.size()) continue;
    int const step = owned[i + 1].rank - owned[i].rank;
    bool const goes_on = i + 2 < owned.size() && owned[i + 2].rank - owned[i + 1].rank == step;
    if (std::abs(step) == 1) owned[i].run = goes_on ? owned[i + 1].run : i + 2;
  }
  parts_ = std::make_shared<Parts const>(std::move(parts));
}

Layout Layout::contiguous(Index tokens, int ranks) {
  require_ranks(ranks);
  std::vector<std::vector<Slice>> slices;
  for (int rank = 0; rank < ranks; ++rank) {
    slices.push_back({{piece_begin(tokens, ranks, rank), piece_begin(tokens, ranks, rank + 1)}});
  }
  return {tokens, std::move(slices)};
}

Layout Layout::zigzag(Index tokens, int ranks) {
  require_ranks(ranks);
  Index const chunks = 2 * static_cast<Index>(ranks);
  auto const chunk = [&](Index i) {
    return Slice{piece_begin(tokens, chunks, i), piece_begin(tokens, chunks, i + 1)};
  };
  std::vector<std::vector<Slice>> slices;
  for (int rank = 0; rank < ranks; ++rank) slices.push_back({chunk(rank), chunk(chunks - 1 - rank)});
  return {tokens, std::move(slices)};
}

Layout Layout::balanced(Mask const& mask, int ranks) {
  require_ranks(ranks);
  Circle circle(mask, mask.q_tokens());
  auto area_left = static_cast<double>(mask.area());
  std::vector<std::vector<Slice>> slices;
  for (int rank = 0; rank < ranks; ++rank) {
    Index const length = circle.tokens() / (ranks - rank);
    Index const start = length == 0 ? 0 : window_of_area(circle, length, area_left / (ranks - rank));
    area_left -= circle.area(start, length);
    slices.push_back(circle.window(start, length));
    circle.remove(start, length);
  }
  return {mask.q_tokens(), std::move(slices)};
}

Layout Layout::root(Index tokens, int ranks) {
  require_ranks(ranks);
  std::vector<std::vector<Slice>> slices(static_cast<std::size_t>(ranks));
  slices.front().push_back({0, tokens});
  return {tokens, std::move(slices)};
}

Layout Layout::from_slices(Index tokens, std::vector<std::vector<Slice>> slices) {
  require_ranks(static_cast<int>(slices.size()));
  std::vector<Slice> all;
  for (auto const& rank : slices) {
    for (Slice const slice : rank) {
      if (!slice.empty()) all.push_back(slice);
    }
  }
  std::ranges::sort(all, {}, &Slice::begin);
  Index covered = 0;
  for (Slice const slice : all) {
    if (slice.begin != covered) {
      throw InvalidProblem(fmt::format("the layout {} position {}; every token must belong to one rank",
                                       slice.begin > covered ? "leaves out" : "gives away twice",
                                       std::min(slice.begin, covered)));
    }
    covered = slice.end;
  }
  if (covered != tokens) {
    throw InvalidProblem(fmt::format("the layout covers {} tokens of {}", covered, tokens));
  }
  return {tokens, std::move(slices)};
}

Index Layout::tokens(int rank) const {
  Index sum = 0;
  for (Slice const slice : slices(rank)) sum += slice.size();
  return sum;
}

Index Layout::local_row(int rank, Index position) const {
  Index before = 0;
  for (Slice const slice : slices(rank)) {
    if (slice.contains(position)) return before + position - slice.begin;
    before += slice.size();
  }
  throw InvalidProblem(fmt::format("position {} does not belong to rank {}", position, rank));
}

RankSet Layout::owners(std::vector<Slice> const& ranges) const {
  auto const& owned = parts_->owned;
  std::vector<RankRange> found;
  found.reserve(2 * ranges.size());
  for (Slice const range : ranges) {
    if (range.empty()) continue;
    auto const position = [&](auto at) { return static_cast<std::size_t>(at - owned.begin()); };
    std::size_t i = position(
        std::ranges::upper_bound(owned, range.begin, {}, [](Owned const& one) { return one.slice.end; }));
    std::size_t const end = position(
        std::ranges::lower_bound(owned, range.end, {}, [](Owned const& one) { return one.slice.begin; }));
    for (; i < end; i = std::min(owned[i].run, end)) {
      auto const [low, high] = std::minmax(owned[i].rank, owned[std::min(owned[i].run, end) - 1].rank);
      found.push_back({low, high + 1});
    }
  }
  return RankSet(std::move(found));
}

Layouts make_layouts(std::string_view name, Mask const& mask, int ranks) {
  bool const square = mask.q_tokens() == mask.kv_tokens();
  auto const with_keys = [&](Layout q) {
    Layout kv = square ? q : Layout::contiguous(mask.kv_tokens(), ranks);
    return Layouts{std::move(q), std::move(kv)};
  };
  if (name == "contiguous") return with_keys(Layout::contiguous(mask.q_tokens(), ranks));
  if (name == "zigzag") return with_keys(Layout::zigzag(mask.q_tokens(), ranks));
  if (name == "balanced") return with_keys(Layout::balanced(mask, ranks));
  if (name == "root") {
    return {Layout::root(mask.q_tokens(), ranks), Layout::contiguous(mask.kv_tokens(), ranks)};
  }
  if (name != "auto") {
    throw InvalidProblem(
        fmt::format("layout '{}': must be auto, contiguous, zigzag, balanced or root", name));
  }
  constexpr double balanced_enough = 1.01;
  for (Layout simple : {Layout::contiguous(mask.q_tokens(), ranks), Layout::zigzag(mask.q_tokens(), ranks)}) {
    if (imbalance(mask, simple) <= balanced_enough) return with_keys(std::move(simple));
  }
  return with_keys(Layout::balanced(mask, ranks));
}

double kept_pairs(Mask const& mask, Layout const& q, int rank) {
  double kept = 0.0;
  for (Slice const slice : q.slices(rank)) {
    kept += static_cast<double>(mask.area(slice, {0, mask.kv_tokens()}));
  }
  return kept;
}

double imbalance(Mask const& mask, Layout const& q) {
  double largest = 0.0;
  double sum = 0.0;
  for (int rank = 0; rank < q.ranks(); ++rank) {
    double const kept = kept_pairs(mask, q, rank);
    largest = std::max(largest, kept);
    sum += kept;
  }
  return sum == 0.0 ? 1.0 : largest * q.ranks() / sum;
}

}  // namespace plait
