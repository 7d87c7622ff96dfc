// Rows as one stream of bytes, against a stream that is written out byte by byte.
#include "pieces.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "transport_case.hpp"

namespace plait {
namespace {

using test::Bytes;

/// The places of the stream's bytes.
std::vector<std::byte const*> places(std::vector<StridedRegion> const& stream) {
  std::vector<std::byte const*> all;
  for (Region const& region : test::regions_of(stream)) {
    for (std::size_t i = 0; i < region.bytes; ++i) all.push_back(region.data + i);
  }
  return all;
}

TEST(Pieces, ACutIsThatPartOfTheStream) {
  Bytes memory(4000);
  std::mt19937 random(5);
  auto const draw = [&](std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<StridedRegion> stream(draw(0, 4));
    for (StridedRegion& piece : stream) {
      std::size_t const width = draw(0, 9);
      piece = {memory.data() + draw(0, 2000), width, width + draw(0, 5), draw(0, 12)};
    }
    std::vector<std::byte const*> const all = places(stream);
    std::size_t const begin = draw(0, all.size());
    std::size_t const length = draw(0, all.size() + 5);
    std::size_t const end = std::min(begin + length, all.size());
    std::vector<StridedRegion> const part = cut(stream, begin, length);
    std::vector<std::byte const*> const expected(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                                 all.begin() + static_cast<std::ptrdiff_t>(end));
    ASSERT_EQ(places(part), expected) << "round " << round;
    // The rest of a row, whole rows, and a part of one, of each.
    ASSERT_LE(part.size(), 3 * stream.size());
  }
}

TEST(Pieces, WholeRowsStayTogether) {
  Bytes memory(1000);
  std::vector<StridedRegion> const part = cut({{memory.data(), 10, 30, 20}}, 25, 100);
  ASSERT_EQ(part.size(), 3U);
  EXPECT_EQ(part[0].bytes(), 5U);
  EXPECT_EQ(part[0].data, memory.data() + 65);
  EXPECT_EQ(part[1].rows, 9U);
  EXPECT_EQ(part[1].pitch, 30U);
  EXPECT_EQ(part[2].bytes(), 5U);
  EXPECT_EQ(part[2].data, memory.data() + 360);
}

}  // namespace
}  // namespace plait
