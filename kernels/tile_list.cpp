#include "plait/tile_list.hpp"

#include <algorithm>

namespace plait {
namespace {

/// The band in the fold's own positions: rows from its first query, keys from its first key.
KeyRange local_range(Band const& band, Slice q, Slice kv) {
  Index const shift = kv.begin - q.begin;
  return {.rows = {band.q.begin - q.begin, band.q.end - q.begin},
          .keys = {band.kv.begin - kv.begin, band.kv.end - kv.begin},
          .lo = band.lo == Band::no_lo ? Band::no_lo : band.lo - shift,
          .hi = band.hi == Band::no_hi ? Band::no_hi : band.hi - shift};
}

Band band_of(KeyRange const& range) {
  return {.q = range.rows, .kv = range.keys, .lo = range.lo, .hi = range.hi};
}

/// The part of a range in one tile's rows, with its keys cut to those that some row sees.
KeyRange cut(KeyRange const& range, Slice tile) {
  Band const part = tighten(intersect(band_of(range), Band{.q = tile, .kv = range.keys}));
  return {.rows = part.q, .keys = part.kv, .lo = part.lo, .hi = part.hi};
}

/// Rows at which no band continues, ascending, and how far the band that begins there reaches.
struct CleanStart {
  Index row;
  Index band_rows;
};
std::vector<CleanStart> clean_starts(std::vector<KeyRange> const& by_row) {
  std::vector<CleanStart> starts;
  Index reached = 0;
  for (KeyRange const& range : by_row) {
    if (range.rows.begin >= reached && range.rows.begin > 0) {
      starts.push_back({range.rows.begin, range.rows.size()});
    }
    reached = std::max(reached, range.rows.end);
  }
  return starts;
}

/// Tiles of `tile_rows` rows, but where a long band starts cleanly (a document of some tiles) a tile does
/// too: its diagonal then lies in the tiles' own, and no tile visits the keys of two documents. A tile that
/// is nearly full is cut for a short one too.
std::vector<Slice> cut_rows(Index rows, std::vector<CleanStart> const& starts, Index tile_rows) {
  std::vector<Slice> tiles;
  auto next = starts.begin();
  for (Index row = 0; row < rows;) {
    Index end = std::min(row + tile_rows, rows);
    while (next != starts.end() && next->row <= row) ++next;
    for (auto start = next; start != starts.end() && start->row < end; ++start) {
      bool const nearly_full = 4 * (start->row - row) >= 3 * tile_rows;
      if (nearly_full || start->band_rows >= 2 * tile_rows) {
        end = start->row;
        break;
      }
    }
    tiles.push_back({row, end});
    row = end;
  }
  return tiles;
}

}  // namespace

Index TileList::area() const {
  Index sum = 0;
  for (QueryTile const& tile : tiles) sum += tile.area;
  return sum;
}

TileList make_tile_list(Slice q, Slice kv, std::span<Band const> bands, Index tile_rows) {
  TileList list{.q_rows = q.size(),
                .kv_rows = kv.size(),
                .tile_rows = tile_rows,
                .tiles = {},
                .ranges = {},
                .unseeing = {}};
  std::vector<KeyRange> by_row;
  for (Band const& band : bands) {
    Band const part = tighten(intersect(band, q, kv));
    if (!part.q.empty()) by_row.push_back(local_range(part, q, kv));
  }
  std::ranges::sort(by_row, {}, [](KeyRange const& range) { return range.rows.begin; });
  std::vector<Slice> const rows = cut_rows(q.size(), clean_starts(by_row), tile_rows);
  // Each band goes to the tiles that its rows meet, and to no other: work is the size of the list.
  std::vector<std::vector<KeyRange>> by_tile(rows.size());
  for (KeyRange const& range : by_row) {
    auto const first = std::ranges::upper_bound(rows, range.rows.begin, {}, &Slice::begin) - rows.begin() - 1;
    for (auto tile = static_cast<std::size_t>(first); tile < rows.size() && rows[tile].begin < range.rows.end;
         ++tile) {
      KeyRange const here = cut(range, rows[tile]);
      if (!here.rows.empty()) by_tile[tile].push_back(here);
    }
  }
  for (std::size_t tile = 0; tile < rows.size(); ++tile) {
    auto& ranges = by_tile[tile];
    if (ranges.empty()) {
      list.unseeing.push_back(rows[tile]);
      continue;
    }
    std::ranges::sort(ranges, {},
                      [](KeyRange const& range) { return std::pair(range.keys.begin, range.rows.begin); });
    QueryTile entry{.rows = rows[tile],
                    .first = static_cast<Index>(list.ranges.size()),
                    .last = static_cast<Index>(list.ranges.size() + ranges.size()),
                    .area = 0};
    for (KeyRange const& range : ranges) entry.area += area(band_of(range));
    list.ranges.insert(list.ranges.end(), ranges.begin(), ranges.end());
    list.tiles.push_back(entry);
  }
  std::ranges::stable_sort(list.tiles, std::ranges::greater{}, &QueryTile::area);
  return list;
}

}  // namespace plait
