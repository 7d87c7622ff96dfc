#include "split.hpp"

#include <algorithm>
#include <functional>
#include <queue>

#include "plait/rounding.hpp"

namespace plait::cuda {
namespace {

/// In key blocks: what a tile takes beside its blocks, and a fold to join the states of its parts, in all and
/// for each part that a multiprocessor has. On an H200, D 128, a block takes 1.4 µs.
constexpr Index tile_overhead = 4;
constexpr Index join_overhead = 6;
constexpr Index part_overhead = 3;
/// No part is shorter: it would be overhead for the most part.
constexpr Index least_part = 2;
/// With so many tiles for each multiprocessor none is idle for long.
constexpr Index enough_tiles = 4;

std::vector<Index> tile_blocks(KernelTiles const& tiles) {
  std::vector<Index> blocks;
  for (Tile const& tile : tiles.tiles) {
    if (Index const own = visited_blocks(tiles, tile); own > 0) blocks.push_back(own);
  }
  return blocks;
}

/// When the last of the multiprocessors is done, in key blocks, if each takes the next part as soon as it is
/// free.
Index makespan(std::vector<Index> const& tiles, Index lanes, Index multiprocessors, Index most_blocks) {
  std::priority_queue<Index, std::vector<Index>, std::greater<>> free;
  for (Index i = 0; i < multiprocessors; ++i) free.push(0);
  Index last = 0;
  for (Index const blocks : tiles) {
    Index const parts = divided_up(blocks, most_blocks);
    for (Index item = 0; item < parts * lanes; ++item) {
      Index const end = free.top() + divided_up(blocks, parts) + tile_overhead;
      free.pop();
      free.push(end);
      last = std::max(last, end);
    }
  }
  return last;
}

Index part_count(std::vector<Index> const& tiles, Index most_blocks) {
  Index parts = 0;
  for (Index const blocks : tiles) parts += divided_up(blocks, most_blocks);
  return parts;
}

/// The shortest parts of which there are so many at most; there are no fewer than tiles.
Index shortest_parts(std::vector<Index> const& tiles, Index most_parts) {
  Index shortest = least_part;
  Index whole = std::max(least_part, std::ranges::max(tiles));
  while (shortest < whole) {
    Index const middle = (shortest + whole) / 2;
    if (part_count(tiles, middle) <= most_parts) {
      whole = middle;
    } else {
      shortest = middle + 1;
    }
  }
  return whole;
}

/// The blocks [first, first + count) of a segment.
Segment part_of(Segment const& whole, std::int32_t first, std::int32_t count, Index key_block) {
  auto const keys = static_cast<std::int32_t>(key_block);
  Segment part = whole;
  part.begin = whole.begin + first * keys;
  part.end = std::min(whole.end, part.begin + count * keys);
  part.blocks = count;
  return part;
}

/// Appends the blocks [begin, end) of a tile.
void append(KernelTiles const& whole, Tile const& tile, Index begin, Index end, Index key_block,
            std::vector<Segment>& segments) {
  Index before = 0;
  for (std::int32_t at = tile.segment_begin; at < tile.segment_end; ++at) {
    Segment const& segment = whole.segments[static_cast<std::size_t>(at)];
    Index const first = std::max<Index>(begin - before, 0);
    Index const stop = std::min<Index>(end - before, segment.blocks);
    if (first < stop) {
      segments.push_back(part_of(segment, static_cast<std::int32_t>(first),
                                 static_cast<std::int32_t>(stop - first), key_block));
    }
    before += segment.blocks;
  }
}

}  // namespace

bool may_be_split(Index tiles, Index lanes, Index multiprocessors) {
  return lanes > 0 && tiles * lanes <= enough_tiles * multiprocessors;
}

Index blocks_of_a_part(KernelTiles const& tiles, Index lanes, Index multiprocessors, Index neighbours) {
  std::vector<Index> const blocks = tile_blocks(tiles);
  Index const items = static_cast<Index>(blocks.size()) * lanes;
  if (items == 0 || !may_be_split(static_cast<Index>(blocks.size()), lanes, multiprocessors)) return 0;
  Index best = 0;
  Index least = makespan(blocks, lanes, multiprocessors, std::ranges::max(blocks));
  least -= neighbours * least / 4;  // what it leaves idle they may use
  least -= least / 8;               // what is a guess should promise something
  for (Index rounds = 1; rounds <= enough_tiles; ++rounds) {
    if (rounds * multiprocessors < items) continue;
    Index const most_blocks = shortest_parts(blocks, rounds * multiprocessors / lanes);
    Index const parts = part_count(blocks, most_blocks) * lanes;
    Index const join = join_overhead + divided_up(part_overhead * parts, multiprocessors);
    Index const time = makespan(blocks, lanes, multiprocessors, most_blocks) + join;
    if (time < least) {
      least = time;
      best = most_blocks;
    }
  }
  return best;
}

SplitTiles split_keys(KernelTiles const& whole, Index most_blocks, Index key_block, Index tile_rows) {
  SplitTiles made;
  for (Tile const& tile : whole.tiles) {
    Index const blocks = visited_blocks(whole, tile);
    Index const parts = divided_up(blocks, most_blocks);
    made.rows.push_back({.row_begin = tile.row_begin,
                         .row_end = tile.row_end,
                         .state_row = static_cast<std::int32_t>(made.state_rows),
                         .parts = static_cast<std::int32_t>(parts)});
    for (Index part = 0; part < parts; ++part) {
      std::size_t const first = made.parts.segments.size();
      append(whole, tile, blocks * part / parts, blocks * (part + 1) / parts, key_block, made.parts.segments);
      made.parts.tiles.push_back(
          {.row_begin = tile.row_begin,
           .row_end = tile.row_end,
           .segment_begin = static_cast<std::int32_t>(first),
           .segment_end = static_cast<std::int32_t>(made.parts.segments.size()),
           .first = made.parts.segments[first],
           .state_shift = static_cast<std::int32_t>(made.state_rows) - tile.row_begin});
      made.state_rows += tile_rows;
    }
  }
  return made;
}

}  // namespace plait::cuda
