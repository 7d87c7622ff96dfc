// Tile lists against counting pair by pair.
#include <gtest/gtest.h>

#include <random>

#include "plait/tile_list.hpp"

namespace plait {
namespace {

TEST(TileList, CoversEachKeptPairOnce) {
  std::mt19937 random(3);
  auto const draw = [&](Index low, Index high) {
    return std::uniform_int_distribution<Index>(low, high)(random);
  };
  for (int trial = 0; trial < 300; ++trial) {
    Slice const q{draw(0, 9), draw(9, 30)}, kv{draw(0, 9), draw(9, 30)};
    Index const cut = draw(0, 30);
    std::vector<Band> const bands{{.q = {0, 30}, .kv = {cut, 30}, .lo = draw(-20, 0), .hi = draw(-3, 20)},
                                  {.q = {draw(0, 15), draw(15, 30)}, .kv = {0, cut}}};
    TileList const list = make_tile_list(q, kv, bands, 8);
    std::vector<int> seen(900, 0);
    for (std::size_t t = 0; t < list.tiles.size(); ++t) {
      QueryTile const& tile = list.tiles[t];
      EXPECT_LE(tile.area, list.tiles[t > 0 ? t - 1 : 0].area);
      for (Index r = tile.first; r < tile.last; ++r) {
        KeyRange const& range = list.ranges[static_cast<std::size_t>(r)];
        for (Index i = range.rows.begin; i < range.rows.end; ++i) {
          EXPECT_TRUE(tile.rows.contains(i));
          for (Index j = range.keys.begin; j < range.keys.end; ++j) {
            if (range.lo <= j - i && j - i <= range.hi) {
              ++seen[static_cast<std::size_t>((i + q.begin) * 30 + j + kv.begin)];
            }
          }
        }
      }
    }
    Index kept = 0;
    for (Index i = 0; i < 30; ++i) {
      for (Index j = 0; j < 30; ++j) {
        bool const inside = q.contains(i) && kv.contains(j);
        int const want = inside && (bands[0].keeps(i, j) || bands[1].keeps(i, j)) ? 1 : 0;
        kept += want;
        ASSERT_EQ(seen[static_cast<std::size_t>(i * 30 + j)], want) << i << ' ' << j;
      }
    }
    EXPECT_EQ(list.area(), kept);
  }
}

}  // namespace
}  // namespace plait
