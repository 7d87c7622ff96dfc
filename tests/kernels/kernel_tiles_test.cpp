// Tile lists as the GPU's kernels read them, against counting pair by pair.
#include "tiles.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "split.hpp"

namespace plait::cuda {
namespace {

/// Visits the pairs as a kernel does: block by block of each segment, with the segment's test if it is
/// masked.
class Visit {
 public:
  Visit(Index q_rows, Index kv_rows, Index key_block)
      : kv_rows_(kv_rows), key_block_(key_block), seen_(static_cast<std::size_t>(q_rows * kv_rows), 0) {}

  void segment(Tile const& tile, Segment const& segment) {
    EXPECT_LT(segment.begin, segment.end);
    EXPECT_LE(0, segment.begin);
    EXPECT_LE(segment.end, kv_rows_);
    EXPECT_EQ(segment.blocks, (segment.end - segment.begin + key_block_ - 1) / key_block_);
    if (segment.masked == 0) {
      EXPECT_EQ((segment.end - segment.begin) % key_block_, 0);
    }
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      for (Index key = segment.begin; key < segment.end; ++key) {
        bool const inside = segment.row_begin <= row && row < segment.row_end && segment.lo <= key - row &&
                            key - row <= segment.hi;
        if (segment.masked == 0) {
          EXPECT_TRUE(inside) << "an unmasked segment leaves out row " << row << ", key " << key;
        }
        if (segment.masked == 0 || inside) ++seen_[static_cast<std::size_t>(row * kv_rows_ + key)];
      }
    }
  }
  [[nodiscard]] int times(Index row, Index key) const {
    return seen_[static_cast<std::size_t>(row * kv_rows_ + key)];
  }

 private:
  Index kv_rows_;
  Index key_block_;
  std::vector<int> seen_;
};

void expect_kept_once(Visit const& visit, Slice q, Slice kv, std::vector<Band> const& bands) {
  for (Index row = 0; row < q.size(); ++row) {
    for (Index key = 0; key < kv.size(); ++key) {
      int want = 0;
      for (Band const& band : bands) want += band.keeps(q.begin + row, kv.begin + key) ? 1 : 0;
      ASSERT_EQ(visit.times(row, key), want) << "row " << row << ", key " << key;
    }
  }
}

/// @param tile_rows  of a tile; the list's are `cluster` times as long
void check(Slice q, Slice kv, std::vector<Band> const& bands, Index tile_rows, Index key_block,
           int cluster = 1) {
  TileList const list = make_tile_list(q, kv, bands, tile_rows * cluster);
  KernelTiles const made = make_kernel_tiles(list, key_block, cluster);
  EXPECT_EQ(made.cluster, cluster);
  ASSERT_EQ(made.tiles.size() % static_cast<std::size_t>(cluster), 0u);
  for (std::size_t i = 0; i < made.tiles.size(); ++i) {
    Tile const& leader = made.tiles[i - i % static_cast<std::size_t>(cluster)];
    EXPECT_EQ(made.tiles[i].segment_begin, leader.segment_begin);
    EXPECT_EQ(made.tiles[i].segment_end, leader.segment_end);
  }
  Visit visit(q.size(), kv.size(), key_block);
  std::vector<int> listed(static_cast<std::size_t>(q.size()), 0);
  bool empty_before = false;
  for (Tile const& tile : made.tiles) {
    EXPECT_LE(tile.row_begin, tile.row_end);
    EXPECT_TRUE(cluster > 1 || tile.row_begin < tile.row_end) << "only a pair's second tile may be empty";
    EXPECT_LE(tile.row_end - tile.row_begin, tile_rows);
    for (Index row = tile.row_begin; row < tile.row_end; ++row) ++listed[static_cast<std::size_t>(row)];
    bool const empty = tile.segment_begin == tile.segment_end;
    EXPECT_TRUE(empty || !empty_before) << "tiles without segments come last";
    empty_before = empty;
    if (!empty) {
      Segment const& first = made.segments[static_cast<std::size_t>(tile.segment_begin)];
      EXPECT_EQ(tile.first.begin, first.begin);
      EXPECT_EQ(tile.first.end, first.end);
      EXPECT_EQ(tile.first.row_begin, first.row_begin);
      EXPECT_EQ(tile.first.row_end, first.row_end);
      EXPECT_EQ(tile.first.lo, first.lo);
      EXPECT_EQ(tile.first.hi, first.hi);
      EXPECT_EQ(tile.first.masked, first.masked);
      EXPECT_EQ(tile.first.blocks, first.blocks);
    }
    for (std::int32_t at = tile.segment_begin; at < tile.segment_end; ++at) {
      visit.segment(tile, made.segments[static_cast<std::size_t>(at)]);
    }
  }
  for (int const times : listed) ASSERT_EQ(times, 1) << "every row has one tile";
  expect_kept_once(visit, q, kv, bands);
}

/// Parts of tiles: each kept pair once, no part too long, each row listed once, and no two parts' states in
/// one place.
void check_split(Slice q, Slice kv, std::vector<Band> const& bands, Index tile_rows, Index key_block,
                 Index most_blocks) {
  KernelTiles const whole = make_kernel_tiles(make_tile_list(q, kv, bands, tile_rows), key_block);
  SplitTiles const made = split_keys(whole, most_blocks, key_block, tile_rows);
  Visit visit(q.size(), kv.size(), key_block);
  std::vector<int> listed(static_cast<std::size_t>(q.size()), 0);
  std::set<Index> states;
  std::size_t next = 0;
  for (SplitRows const& rows : made.rows) {
    for (Index row = rows.row_begin; row < rows.row_end; ++row) ++listed[static_cast<std::size_t>(row)];
    for (Index part = 0; part < rows.parts; ++part) {
      ASSERT_LT(next, made.parts.tiles.size());
      Tile const& tile = made.parts.tiles[next++];
      EXPECT_EQ(tile.row_begin, rows.row_begin);
      EXPECT_EQ(tile.row_end, rows.row_end);
      Index const state = tile.row_begin + tile.state_shift;
      EXPECT_EQ(state, rows.state_row + part * tile_rows);
      EXPECT_EQ(state % tile_rows, 0);
      EXPECT_LE(state + tile_rows, made.state_rows);
      EXPECT_TRUE(states.insert(state).second);
      Index blocks = 0;
      ASSERT_LT(tile.segment_begin, tile.segment_end);
      EXPECT_EQ(tile.first.begin, made.parts.segments[static_cast<std::size_t>(tile.segment_begin)].begin);
      for (std::int32_t at = tile.segment_begin; at < tile.segment_end; ++at) {
        visit.segment(tile, made.parts.segments[static_cast<std::size_t>(at)]);
        blocks += made.parts.segments[static_cast<std::size_t>(at)].blocks;
      }
      EXPECT_LE(blocks, most_blocks);
    }
  }
  EXPECT_EQ(next, made.parts.tiles.size());
  for (int const times : listed) ASSERT_EQ(times, 1);
  expect_kept_once(visit, q, kv, bands);
}

TEST(KernelTiles, PartsVisitEachKeptPairOnce) {
  std::mt19937 random(5);
  auto const draw = [&](Index low, Index high) {
    return std::uniform_int_distribution<Index>(low, high)(random);
  };
  for (int trial = 0; trial < 200; ++trial) {
    SCOPED_TRACE(trial);
    Slice const q{draw(0, 50), 50 + draw(1, 150)};
    Slice const kv{draw(0, 50), 50 + draw(1, 700)};
    std::vector<Band> bands;
    for (Index begin = kv.begin; begin < kv.end;) {  // side by side, so that none overlap
      Index const end = std::min(begin + draw(1, 300), kv.end);
      Index const lo = draw(-300, 300);
      bands.push_back(
          {.q = {draw(q.begin, q.end - 1), q.end}, .kv = {begin, end}, .lo = lo, .hi = lo + draw(0, 600)});
      begin = end;
    }
    check_split(q, kv, bands, 64, 16, draw(1, 12));
  }
}

/// Folds of few tiles are split, so that every multiprocessor has about as much to do, and no others.
TEST(KernelTiles, FewTilesAreSplit) {
  constexpr Index multiprocessors = 132;
  auto const tiles_of = [](Index q_rows, Index kv_rows, bool causal) {
    Band band{.q = {0, q_rows}, .kv = {0, kv_rows}};
    if (causal) band.hi = kv_rows - q_rows;
    return make_kernel_tiles(make_tile_list(band.q, band.kv, std::span(&band, 1), 128), 128);
  };
  // One tile of 1,024 blocks; eight heads of it; a few tokens to a short cache; a long prefill.
  EXPECT_EQ(blocks_of_a_part(tiles_of(1, 131072, false), 1, multiprocessors, 0), 8);
  EXPECT_EQ(blocks_of_a_part(tiles_of(1, 131072, false), 8, multiprocessors, 0), 64);
  EXPECT_EQ(blocks_of_a_part(tiles_of(16, 512, true), 8, multiprocessors, 0), 0);
  EXPECT_EQ(blocks_of_a_part(tiles_of(65536, 65536, true), 8, multiprocessors, 0), 0);
  EXPECT_EQ(blocks_of_a_part(tiles_of(132 * 128, 65536, false), 1, multiprocessors, 0), 0);
  // 64 tiles that see 7 to 8 thousandths of all keys each leave half of the multiprocessors idle.
  Index const half = blocks_of_a_part(tiles_of(8192, 65536, true), 1, multiprocessors, 0);
  EXPECT_GT(half, 0);
  EXPECT_LE(half, 256);
  EXPECT_EQ(blocks_of_a_part(tiles_of(1, 131072, false), 0, multiprocessors, 0), 0) << "heads are not known";
  EXPECT_EQ(blocks_of_a_part(KernelTiles{}, 8, multiprocessors, 0), 0);
  // Between others that use the other half nothing is gained.
  EXPECT_GT(blocks_of_a_part(tiles_of(8192, 8192, false), 1, multiprocessors, 0), 0);
  EXPECT_EQ(blocks_of_a_part(tiles_of(8192, 8192, false), 1, multiprocessors, 2), 0);
}

TEST(KernelTiles, TheDiagonalComesLast) {
  std::vector<Band> const causal{{.q = {0, 512}, .kv = {0, 512}, .hi = 0}};
  KernelTiles const made = make_kernel_tiles(make_tile_list({0, 512}, {0, 512}, causal, 128), 128);
  ASSERT_EQ(made.tiles.size(), 4u);
  for (Tile const& tile : made.tiles) {
    Segment const& last = made.segments[static_cast<std::size_t>(tile.segment_end - 1)];
    EXPECT_EQ(last.masked, 1);
    EXPECT_EQ(last.begin, tile.row_begin);
    EXPECT_EQ(last.end, tile.row_end);
    EXPECT_EQ(tile.first.begin, 0);
  }
}

TEST(KernelTiles, VisitEachKeptPairOnce) {
  std::mt19937 random(5);
  auto const draw = [&](Index low, Index high) {
    return std::uniform_int_distribution<Index>(low, high)(random);
  };
  for (int trial = 0; trial < 400; ++trial) {
    SCOPED_TRACE(trial);
    Slice const q{draw(0, 40), draw(40, 120)};
    Slice const kv{draw(0, 40), draw(40, 120)};
    Index const cut = draw(0, 120);
    std::vector<Band> const bands{{.q = {0, 120}, .kv = {cut, 120}, .lo = draw(-80, 0), .hi = draw(-3, 80)},
                                  {.q = {draw(0, 60), draw(60, 120)},
                                   .kv = {0, cut},
                                   .hi = draw(0, 1) == 0 ? Band::no_hi : draw(-50, 50)}};
    check(q, kv, bands, draw(1, 3) * 8, draw(1, 4) * 4, static_cast<int>(draw(1, 2)));
  }
}

TEST(KernelTiles, MostOfALongRangeNeedsNoMask) {
  std::vector<Band> const causal{{.q = {0, 512}, .kv = {0, 512}, .hi = 0}};
  check({0, 512}, {0, 512}, causal, 64, 64);
  KernelTiles const made = make_kernel_tiles(make_tile_list({0, 512}, {0, 512}, causal, 64), 64);
  ASSERT_EQ(made.tiles.size(), 8u);
  Index masked = 0;
  for (Segment const& segment : made.segments) masked += segment.masked != 0 ? segment.blocks : 0;
  EXPECT_EQ(masked, 8);  // the diagonal alone
}

TEST(KernelTiles, PairsVisitOnceMoreWhatOneOfThemSees) {
  std::vector<Band> const causal{{.q = {0, 512}, .kv = {0, 512}, .hi = 0}};
  // Eight tiles of 64 rows see 1, 2, … 8 blocks; in pairs 2, 2, 4, 4, … 8, 8.
  EXPECT_EQ(visited_blocks(make_kernel_tiles(make_tile_list({0, 512}, {0, 512}, causal, 64), 64)), 36);
  EXPECT_EQ(visited_blocks(make_kernel_tiles(make_tile_list({0, 512}, {0, 512}, causal, 128), 64, 2)), 40);
}

TEST(KernelTiles, NoBandsAtAll) {
  check({0, 100}, {0, 50}, {}, 64, 64);
}

}  // namespace
}  // namespace plait::cuda
