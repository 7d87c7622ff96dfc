// Copies between two layouts of one stream of bytes, against a copy byte by byte.
#include "peer/row_copies.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "transport_case.hpp"

namespace plait {
namespace {

using test::Bytes;

/// Rows of `bytes` in all, within `memory`: single pieces, some of them empty, and rows with gaps.
std::vector<StridedRegion> random_rows(Bytes& memory, std::size_t bytes, std::mt19937& random) {
  auto const draw = [&](std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(random);
  };
  std::vector<StridedRegion> pieces;
  std::byte* at = memory.data();
  while (bytes > 0) {
    std::size_t const width = draw(1, std::min<std::size_t>(bytes, 12));
    std::size_t const rows = draw(1, bytes / width);
    std::size_t const pitch = rows == 1 ? width : width + draw(1, 3);
    pieces.push_back({.data = at, .width = width, .pitch = pitch, .rows = rows});
    if (draw(0, 4) == 0) pieces.push_back({.data = at, .width = draw(0, 1), .rows = 0});
    at += rows * pitch + draw(0, 5);
    bytes -= rows * width;
  }
  return pieces;
}

void perform(std::vector<RowCopy> const& copies) {
  for (RowCopy const& copy : copies) {
    for (std::size_t row = 0; row < copy.rows; ++row) {
      std::memcpy(copy.into + row * copy.into_pitch, copy.from + row * copy.from_pitch, copy.width);
    }
  }
}

TEST(RowCopies, RowsOfOneSizeAreOneCopy) {
  Bytes from(10'000);
  Bytes into(10'000);
  StridedRegion const rows{.data = from.data(), .width = 16, .pitch = 64, .rows = 100};
  StridedRegion const others{.data = into.data(), .width = 16, .pitch = 24, .rows = 100};
  StridedRegion const piece{.data = into.data(), .width = 1600, .pitch = 1600, .rows = 1};
  EXPECT_EQ(copies_between({{rows}}, {{others}}).size(), 1u);
  EXPECT_EQ(copies_between({{rows}}, {{piece}}).size(), 1u);
  EXPECT_EQ(copies_between({{piece}}, {{rows}}).size(), 1u);
  std::vector<StridedRegion> const keys_and_values{
      {.data = from.data(), .width = 16, .pitch = 64, .rows = 50},
      {.data = from.data() + 5000, .width = 16, .pitch = 64, .rows = 50}};
  EXPECT_EQ(copies_between(keys_and_values, {{piece}}).size(), 2u);
}

TEST(RowCopies, AnyTwoLayoutsOfOneLength) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::size_t const bytes = std::uniform_int_distribution<std::size_t>(0, 200)(random);
    Bytes source(5000);
    for (std::size_t i = 0; i < source.size(); ++i)
      source[i] = test::content(static_cast<std::uint64_t>(round), i);
    Bytes target(5000);
    std::vector<StridedRegion> const from = random_rows(source, bytes, random);
    std::vector<StridedRegion> const into = random_rows(target, bytes, random);
    Bytes const stream = test::stream_of(from);
    Bytes expected = target;
    std::size_t at = 0;
    for (Region const& piece : test::regions_of(into)) {
      std::memcpy(expected.data() + (piece.data - target.data()), stream.data() + at, piece.bytes);
      at += piece.bytes;
    }
    perform(copies_between(from, into));
    ASSERT_EQ(target, expected) << "round " << round;
  }
}

TEST(RowCopies, LayoutsOfDifferentLengthsAreALogicError) {
  Bytes memory(100);
  StridedRegion const one{.data = memory.data(), .width = 10, .pitch = 10, .rows = 1};
  EXPECT_THROW((void)copies_between({{one}}, {}), std::logic_error);
  EXPECT_TRUE(copies_between({}, {}).empty());
}

}  // namespace
}  // namespace plait
