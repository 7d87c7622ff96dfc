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

}  // namespace

Index TileList::area() const {
  Index sum = 0;
  for (QueryTile const& tile : tiles) sum += tile.area;
  return sum;
}

TileList make_tile_list(Slice q, Slice kv, std::span<Band const> bands, Index tile_rows) {
  TileList list{.q_rows = q.size(), .kv_rows = kv.size(), .tile_rows = tile_rows, .tiles = {}, .ranges = {}};
  auto const tiles = static_cast<std::size_t>((q.size() + tile_rows - 1) / tile_rows);
  // Each band goes to the tiles that its rows meet, and to no other: work is the size of the list.
  std::vector<std::vector<KeyRange>> by_tile(tiles);
  for (Band const& band : bands) {
    Band const part = tighten(intersect(band, q, kv));
    if (part.q.empty()) continue;
    KeyRange const range = local_range(part, q, kv);
    for (Index tile = range.rows.begin / tile_rows; tile * tile_rows < range.rows.end; ++tile) {
      KeyRange const here = cut(range, {tile * tile_rows, std::min((tile + 1) * tile_rows, q.size())});
      if (!here.rows.empty()) by_tile[static_cast<std::size_t>(tile)].push_back(here);
    }
  }
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    auto& ranges = by_tile[tile];
    if (ranges.empty()) continue;
    std::ranges::sort(ranges, {},
                      [](KeyRange const& range) { return std::pair(range.keys.begin, range.rows.begin); });
    auto const first_row = static_cast<Index>(tile) * tile_rows;
    QueryTile entry{.rows = {first_row, std::min(first_row + tile_rows, q.size())},
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
