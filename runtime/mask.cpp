#include "plait/mask.hpp"

#include <fmt/format.h>

#include <numeric>
#include <tuple>
#include <utility>

#include "plait/rounding.hpp"

namespace plait {
namespace {

auto order(Band const& band) {
  return std::tuple(band.q.begin, band.kv.begin, band.lo, band.q.end);
}

/// A band keeps no pair if its rectangle has none or lies on one side of its diagonals.
bool is_empty(Band const& band) {
  return band.q.empty() || band.kv.empty() || band.lo > band.hi || band.kv.end - 1 - band.q.begin < band.lo ||
         band.kv.begin - (band.q.end - 1) > band.hi;
}

void require_tokens(Index q_tokens, Index kv_tokens) {
  if (q_tokens < 0 || kv_tokens < 0) {
    throw InvalidProblem(
        fmt::format("a mask over {} × {} tokens: counts must not be negative", q_tokens, kv_tokens));
  }
}

/// Sweeps the bands in order of first query; those whose queries may still overlap stay active.
void require_disjoint(std::span<Band const> sorted) {
  std::vector<Band const*> active;
  for (Band const& band : sorted) {
    std::erase_if(active, [&](Band const* other) { return other->q.end <= band.q.begin; });
    for (Band const* other : active) {
      if (area(intersect(*other, band)) > 0) {
        throw InvalidProblem(
            fmt::format("bands overlap: {} and {}; each (query, key) pair may be in one band only",
                        describe(*other), describe(band)));
      }
    }
    active.push_back(&band);
  }
}

}  // namespace

Mask::Mask(Index q_tokens, Index kv_tokens, std::vector<Band> bands)
    : q_tokens_(q_tokens), kv_tokens_(kv_tokens) {
  Data data{.bands = std::move(bands), .reach = {}, .by_keys = {}, .keys_reach = {}};
  for (Band& band : data.bands) band = tighten(band);
  std::erase_if(data.bands, [](Band const& band) { return band.q.empty(); });
  std::ranges::sort(data.bands, {}, order);
  Index reach = 0;
  for (Band const& band : data.bands) data.reach.push_back(reach = std::max(reach, band.q.end));
  data.by_keys.resize(data.bands.size());
  std::iota(data.by_keys.begin(), data.by_keys.end(), 0U);
  std::ranges::sort(data.by_keys, {}, [&](std::uint32_t i) { return data.bands[i].kv.begin; });
  reach = 0;
  for (std::uint32_t const i : data.by_keys) {
    data.keys_reach.push_back(reach = std::max(reach, data.bands[i].kv.end));
  }
  data_ = std::make_shared<Data const>(std::move(data));
}

template <class Use>
void Mask::for_each_meeting(Slice q, Use&& use) const {
  auto const& [bands, reach, by_keys, keys_reach] = *data_;
  auto const first = std::ranges::upper_bound(reach, q.begin) - reach.begin();
  for (auto i = static_cast<std::size_t>(first); i < bands.size() && bands[i].q.begin < q.end; ++i) {
    if (bands[i].q.end > q.begin) use(bands[i]);
  }
}

Mask Mask::full(Index q_tokens, Index kv_tokens) {
  return window(q_tokens, kv_tokens, -1, -1);
}

Mask Mask::causal(Index q_tokens, Index kv_tokens) {
  return window(q_tokens, kv_tokens, -1, 0);
}

Mask Mask::window(Index q_tokens, Index kv_tokens, Index left, Index right) {
  require_tokens(q_tokens, kv_tokens);
  if (left < -1 || right < -1) {
    throw InvalidProblem(fmt::format(
        "window {},{}: each side must be −1 (unbounded) or a number of tokens that is not negative", left,
        right));
  }
  Index const shift = kv_tokens - q_tokens;
  // A side longer than the axis is unbounded: so no sum can overflow.
  Index const longest = q_tokens + kv_tokens;
  Band band{.q = {0, q_tokens}, .kv = {0, kv_tokens}};
  if (left != -1 && left < longest) band.lo = shift - left;
  if (right != -1 && right < longest) band.hi = shift + right;
  return {q_tokens, kv_tokens, {band}};
}

Mask Mask::documents(std::span<Index const> lengths) {
  std::vector<Band> bands;
  bands.reserve(lengths.size());
  Index begin = 0;
  for (Index const length : lengths) {
    if (length < 0) throw InvalidProblem(fmt::format("document of {} tokens: must not be negative", length));
    Slice const tokens{begin, begin + length};
    bands.push_back({.q = tokens, .kv = tokens});
    begin = tokens.end;
  }
  return {begin, begin, std::move(bands)};
}

Mask Mask::blocks(Index q_tokens, Index kv_tokens, Index block_size, std::span<std::uint8_t const> kept) {
  require_tokens(q_tokens, kv_tokens);
  if (block_size < 1) throw InvalidProblem(fmt::format("block size {}: must be at least 1", block_size));
  Index const rows = divided_up(q_tokens, block_size);
  Index const columns = divided_up(kv_tokens, block_size);
  if (static_cast<Index>(kept.size()) != rows * columns) {
    throw InvalidProblem(
        fmt::format("the block mask has {} entries; {} × {} tokens in blocks of {} need {} × {}", kept.size(),
                    q_tokens, kv_tokens, block_size, rows, columns));
  }
  std::vector<Band> bands;
  auto const tokens = [&](Index first, Index last, Index limit) {
    return Slice{first * block_size, std::min(last * block_size, limit)};
  };
  for (Index row = 0; row < rows; ++row) {
    auto const line =
        kept.subspan(static_cast<std::size_t>(row * columns), static_cast<std::size_t>(columns));
    auto const keeps = [&](Index column) { return line[static_cast<std::size_t>(column)] != 0; };
    for (Index column = 0; column < columns; ++column) {
      if (!keeps(column)) continue;
      Index const first = column;
      while (column + 1 < columns && keeps(column + 1)) ++column;
      bands.push_back({.q = tokens(row, row + 1, q_tokens), .kv = tokens(first, column + 1, kv_tokens)});
    }
  }
  return {q_tokens, kv_tokens, std::move(bands)};
}

Mask Mask::from_bands(Index q_tokens, Index kv_tokens, std::vector<Band> bands) {
  require_tokens(q_tokens, kv_tokens);
  for (Band const& band : bands) {
    Slice const all_q{0, q_tokens};
    Slice const all_kv{0, kv_tokens};
    bool const ordered = band.q.begin <= band.q.end && band.kv.begin <= band.kv.end;
    if (!ordered || !all_q.contains(band.q) || !all_kv.contains(band.kv)) {
      throw InvalidProblem(
          fmt::format("band {}: must lie within q [0, {}) kv [0, {})", describe(band), q_tokens, kv_tokens));
    }
    // A diagonal beyond the axes says no more than no diagonal: so no sum can overflow.
    if (band.lo < Band::no_lo || band.lo > Band::no_hi || band.hi > Band::no_hi || band.hi < Band::no_lo) {
      throw InvalidProblem(fmt::format("band {}: diagonals must lie within ±2^61", describe(band)));
    }
  }
  Mask mask{q_tokens, kv_tokens, std::move(bands)};
  require_disjoint(mask.bands());
  return mask;
}

Mask Mask::intersect(Mask const& other) const {
  if (q_tokens_ != other.q_tokens_ || kv_tokens_ != other.kv_tokens_) {
    throw InvalidProblem(fmt::format("masks of {} × {} and {} × {} tokens cannot be intersected", q_tokens_,
                                     kv_tokens_, other.q_tokens_, other.kv_tokens_));
  }
  std::vector<Band> both;
  for (Band const& band : bands()) {
    other.for_each_meeting(band.q, [&](Band const& theirs) {
      Band const common = tighten(plait::intersect(band, theirs));
      if (!common.q.empty()) both.push_back(common);
    });
  }
  return {q_tokens_, kv_tokens_, std::move(both)};
}

std::vector<Band> Mask::restricted(Slice q, Slice kv) const {
  std::vector<Band> found;
  for_each_meeting(q, [&](Band const& band) {
    Band const part = tighten(plait::intersect(band, q, kv));
    if (!part.q.empty()) found.push_back(part);
  });
  return found;
}

Index Mask::area(Slice q, Slice kv) const {
  Index sum = 0;
  for_each_meeting(q, [&](Band const& band) { sum += plait::area(plait::intersect(band, q, kv)); });
  return sum;
}

bool Mask::meets(Slice q, Slice kv) const {
  bool found = false;
  for_each_meeting(q, [&](Band const& band) { found = found || !is_empty(plait::intersect(band, q, kv)); });
  return found;
}

std::vector<Slice> Mask::keys_of(Slice q) const {
  std::vector<Slice> found;
  for_each_meeting(q, [&](Band const& band) {
    // A tight band has a pair in each of its columns.
    Slice const keys = tighten(plait::intersect(band, q, {0, kv_tokens_})).kv;
    if (!keys.empty()) found.push_back(keys);
  });
  return found;
}

std::vector<Slice> Mask::queries_of(Slice kv) const {
  auto const& [bands, reach, by_keys, keys_reach] = *data_;
  std::vector<Slice> found;
  auto const first = std::ranges::upper_bound(keys_reach, kv.begin) - keys_reach.begin();
  for (auto i = static_cast<std::size_t>(first); i < bands.size(); ++i) {
    Band const& band = bands[by_keys[i]];
    if (band.kv.begin >= kv.end) break;
    if (band.kv.end <= kv.begin) continue;
    Slice const queries = tighten(plait::intersect(band, {0, q_tokens_}, kv)).q;
    if (!queries.empty()) found.push_back(queries);
  }
  return found;
}

bool Mask::keeps(Index q, Index k) const {
  bool found = false;
  for_each_meeting({q, q + 1}, [&](Band const& band) { found = found || band.keeps(q, k); });
  return found;
}

}  // namespace plait
