// What the verifier knows of a slot: which rows of which block are in it, and what a state has seen.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

/// What a slot holds, symbolically.
struct Content {
  std::optional<Block> block;   ///< as which it is laid out; nothing if never written
  std::vector<Slice> parts;     ///< the rows of it that are there: disjoint, ascending, neighbours joined
  std::vector<BlockId> folded;  ///< of a state: the key/value blocks in it, with repetition

  [[nodiscard]] bool has(Slice rows) const {
    return rows.empty() || std::ranges::any_of(parts, [&](Slice part) { return part.contains(rows); });
  }
  void add(Slice rows) {
    auto const at = std::ranges::lower_bound(parts, rows.begin, {}, &Slice::begin);
    auto part = parts.insert(at, rows);
    if (part != parts.begin() && std::prev(part)->end == part->begin) {
      part = parts.erase(part);
      (--part)->end = rows.end;
    }
    if (std::next(part) != parts.end() && std::next(part)->begin == part->end) {
      part->end = std::next(part)->end;
      parts.erase(std::next(part));
    }
  }
  void remove(Slice rows) {
    std::vector<Slice> left;
    for (Slice const part : parts) {
      Slice const before{part.begin, std::min(part.end, rows.begin)};
      Slice const after{std::max(part.begin, rows.end), part.end};
      if (!before.empty()) left.push_back(before);
      if (!after.empty()) left.push_back(after);
    }
    parts = std::move(left);
  }
};

/// A block on its way to a rank, or its final rows on their way home (at rest).
struct Delivery {
  int rank;
  Transfer receive;
  Content content;
};

}  // namespace plait
