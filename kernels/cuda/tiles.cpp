#include "tiles.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "plait/rounding.hpp"

namespace plait::cuda {
namespace {

std::int32_t narrow(Index position) {
  return static_cast<std::int32_t>(position);
}

/// Diagonals beyond every block's are as good as none, and leave room for sums in 32 bits.
std::int32_t narrow_diagonal(Index diagonal) {
  constexpr Index beyond = std::numeric_limits<std::int32_t>::max() / 4;
  return narrow(std::clamp(diagonal, -beyond, beyond));
}

Segment segment(KeyRange const& range, Slice keys, bool masked, Index key_block) {
  return {.begin = narrow(keys.begin),
          .end = narrow(keys.end),
          .row_begin = narrow(range.rows.begin),
          .row_end = narrow(range.rows.end),
          .lo = narrow_diagonal(range.lo),
          .hi = narrow_diagonal(range.hi),
          .masked = masked ? 1 : 0,
          .blocks = narrow(divided_up(keys.size(), key_block))};
}

/// The keys of a range that every row of the tile sees, cut to a whole number of blocks; masked keys before
/// it fill whole blocks too.
Slice full_part(KeyRange const& range, Slice tile, Index key_block) {
  Slice const keys = range.keys;
  if (!range.rows.contains(tile)) return {keys.begin, keys.begin};
  Slice full = intersect(keys, {range.lo + tile.end - 1, range.hi + tile.begin + 1});
  if (full.empty()) return {keys.begin, keys.begin};
  full.begin = keys.begin + rounded_up(full.begin - keys.begin, key_block);
  Index const blocks = (full.end - full.begin) / key_block;
  if (full.begin >= full.end || blocks == 0) return {keys.begin, keys.begin};
  return {full.begin, full.begin + blocks * key_block};
}

void append(KeyRange const& range, Slice tile, Index key_block, std::vector<Segment>& segments) {
  Slice const full = full_part(range, tile, key_block);
  Slice const tail{full.end, range.keys.end};
  Slice const head{range.keys.begin, full.begin};
  if (!head.empty()) segments.push_back(segment(range, head, true, key_block));
  if (!full.empty()) segments.push_back(segment(range, full, false, key_block));
  if (!tail.empty()) segments.push_back(segment(range, tail, true, key_block));
}

/// Longer tiles before shorter ones, but those of about one length (within a factor of 2) by their rows:
/// tiles that run at the same time then share keys, which come from the L2 cache. For a causal mask it is the
/// order of areas.
std::vector<QueryTile> in_order(std::vector<QueryTile> tiles) {
  std::ranges::sort(tiles, std::ranges::greater{}, [](QueryTile const& tile) {
    return std::pair(std::bit_width(static_cast<std::uint64_t>(tile.area)), tile.rows.begin);
  });
  return tiles;
}

}  // namespace

KernelTiles make_kernel_tiles(TileList const& list, Index key_block, int cluster) {
  KernelTiles made;
  made.cluster = cluster;
  Index const part = list.tile_rows / cluster;
  auto const add = [&](Slice rows, std::size_t first) {
    for (int i = 0; i < cluster; ++i) {
      made.tiles.push_back({.row_begin = narrow(std::min(rows.begin + i * part, rows.end)),
                            .row_end = narrow(std::min(rows.begin + (i + 1) * part, rows.end)),
                            .segment_begin = static_cast<std::int32_t>(first),
                            .segment_end = static_cast<std::int32_t>(made.segments.size()),
                            .first = first == made.segments.size() ? Segment{} : made.segments[first],
                            .state_shift = 0});
    }
  };
  for (QueryTile const& tile : in_order(list.tiles)) {
    std::size_t const first = made.segments.size();
    for (Index at = tile.first; at < tile.last; ++at) {
      append(list.ranges[static_cast<std::size_t>(at)], tile.rows, key_block, made.segments);
    }
    add(tile.rows, first);
  }
  for (Slice const rows : list.unseeing) add(rows, made.segments.size());
  return made;
}

Index visited_blocks(KernelTiles const& tiles, Tile const& tile) {
  Index blocks = 0;
  for (std::int32_t at = tile.segment_begin; at < tile.segment_end; ++at) {
    blocks += tiles.segments[static_cast<std::size_t>(at)].blocks;
  }
  return blocks;
}

Index visited_blocks(KernelTiles const& tiles) {
  Index blocks = 0;
  for (Tile const& tile : tiles.tiles) blocks += visited_blocks(tiles, tile);
  return blocks;
}

}  // namespace plait::cuda
