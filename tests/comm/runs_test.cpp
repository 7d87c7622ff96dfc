// Copies between two layouts of one stream of bytes, against a copy byte by byte.
#include "peer/runs.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "transport_case.hpp"

namespace plait {
namespace {

using test::Bytes;

std::vector<Region> pieces_of(std::vector<RowRun> const& runs) {
  std::vector<Region> pieces;
  for (RowRun const& run : runs) {
    for (std::size_t row = 0; row < run.rows; ++row)
      pieces.push_back({run.data + row * run.pitch, run.width});
  }
  return pieces;
}

/// Runs of `bytes` in all, within `memory`: single pieces, and rows with gaps.
std::vector<RowRun> random_runs(Bytes& memory, std::size_t bytes, std::mt19937& random) {
  auto const draw = [&](std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(random);
  };
  std::vector<RowRun> runs;
  std::byte* at = memory.data();
  while (bytes > 0) {
    std::size_t const width = draw(1, std::min<std::size_t>(bytes, 12));
    std::size_t const rows = draw(1, bytes / width);
    std::size_t const pitch = rows == 1 ? width : width + draw(1, 3);
    runs.push_back({.data = at, .width = width, .pitch = pitch, .rows = rows});
    at += rows * pitch + draw(0, 5);
    bytes -= rows * width;
  }
  return runs;
}

void perform(std::vector<RowCopy> const& copies) {
  for (RowCopy const& copy : copies) {
    for (std::size_t row = 0; row < copy.rows; ++row) {
      std::memcpy(copy.into + row * copy.into_pitch, copy.from + row * copy.from_pitch, copy.width);
    }
  }
}

TEST(Runs, PiecesOfOneSizeAndDistanceAreOne) {
  Bytes memory(1000);
  std::byte* const data = memory.data();
  std::vector<RowRun> const runs = runs_of({{data, 10, 0},
                                            {data + 30, 10, 0},
                                            {data + 60, 10, 0},  // rows
                                            {data + 200, 0, 0},  // nothing
                                            {data + 300, 10, 1},
                                            {data + 310, 10, 1},
                                            {data + 320, 10, 1}});
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].rows, 3u);
  EXPECT_EQ(runs[0].pitch, 30u);
  EXPECT_EQ(runs[0].width, 10u);
  EXPECT_EQ(runs[1].rows, 1u) << "rows that touch are one piece";
  EXPECT_EQ(runs[1].width, 30u);
  EXPECT_TRUE(runs_of({}).empty());
  EXPECT_TRUE(runs_of({{data, 0, 0}}).empty());
}

TEST(Runs, RowsOfOneSizeAreOneCopy) {
  Bytes from(10'000);
  Bytes into(10'000);
  RowRun const rows{.data = from.data(), .width = 16, .pitch = 64, .rows = 100};
  RowRun const others{.data = into.data(), .width = 16, .pitch = 24, .rows = 100};
  RowRun const piece{.data = into.data(), .width = 1600, .pitch = 1600, .rows = 1};
  EXPECT_EQ(copies_between({{rows}}, {{others}}).size(), 1u);
  EXPECT_EQ(copies_between({{rows}}, {{piece}}).size(), 1u);
  EXPECT_EQ(copies_between({{piece}}, {{rows}}).size(), 1u);
  std::vector<RowRun> const keys_and_values{
      {.data = from.data(), .width = 16, .pitch = 64, .rows = 50},
      {.data = from.data() + 5000, .width = 16, .pitch = 64, .rows = 50}};
  EXPECT_EQ(copies_between(keys_and_values, {{piece}}).size(), 2u);
}

TEST(Runs, AnyTwoLayoutsOfOneLength) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::size_t const bytes = std::uniform_int_distribution<std::size_t>(0, 200)(random);
    Bytes source(5000);
    for (std::size_t i = 0; i < source.size(); ++i)
      source[i] = test::content(static_cast<std::uint64_t>(round), i);
    Bytes target(5000);
    std::vector<RowRun> const from = random_runs(source, bytes, random);
    std::vector<RowRun> const into = random_runs(target, bytes, random);
    Bytes stream;
    for (Region const& piece : pieces_of(from))
      stream.insert(stream.end(), piece.data, piece.data + piece.bytes);
    Bytes expected = target;
    std::size_t at = 0;
    for (Region const& piece : pieces_of(into)) {
      std::memcpy(expected.data() + (piece.data - target.data()), stream.data() + at, piece.bytes);
      at += piece.bytes;
    }
    perform(copies_between(from, into));
    ASSERT_EQ(target, expected) << "round " << round;
  }
}

TEST(Runs, LayoutsOfDifferentLengthsAreALogicError) {
  Bytes memory(100);
  RowRun const one{.data = memory.data(), .width = 10, .pitch = 10, .rows = 1};
  EXPECT_THROW((void)copies_between({{one}}, {}), std::logic_error);
  EXPECT_TRUE(copies_between({}, {}).empty());
}

}  // namespace
}  // namespace plait
