#include "pieces.hpp"

#include <gtest/gtest.h>

#include <array>

namespace plait {
namespace {

TEST(Pieces, RunsEndWhereTensorsDo) {
  std::array<std::byte, 160> memory{};
  std::vector<Region> pieces;
  // Two tensors of two rows, side by side, so that all four pieces lie 40 bytes apart.
  for (int i = 0; i < 4; ++i) pieces.push_back({memory.data() + 40 * i, 16, i / 2});
  EXPECT_EQ(run_length(pieces, 0), 2U);
  EXPECT_EQ(run_length(pieces, 1), 1U);
  EXPECT_EQ(run_length(pieces, 2), 2U);
  EXPECT_EQ(run_length(pieces, 3), 1U);
}

TEST(Pieces, RunsHaveOneSizeAndOneDistance) {
  std::array<std::byte, 200> memory{};
  auto const at = [&](std::ptrdiff_t begin, std::size_t bytes) {
    return Region{memory.data() + begin, bytes};
  };
  EXPECT_EQ(run_length({at(0, 8), at(20, 8), at(40, 8), at(70, 8)}, 0), 3U);
  EXPECT_EQ(run_length({at(0, 8), at(20, 8), at(40, 4)}, 0), 2U);
  EXPECT_EQ(run_length({at(40, 8), at(20, 8), at(0, 8)}, 0), 1U) << "backwards";
  EXPECT_EQ(run_length({at(0, 8), at(4, 8), at(8, 8)}, 0), 1U) << "overlapping";
  EXPECT_EQ(run_length({at(0, 0), at(20, 0)}, 0), 1U) << "empty";
}

TEST(Pieces, CutsKeepTheirTensor) {
  std::array<std::byte, 64> memory{};
  std::vector<Region> const part = cut({{memory.data(), 16, 0}, {memory.data() + 32, 16, 1}}, 8, 16);
  ASSERT_EQ(part.size(), 2U);
  EXPECT_EQ(part[0].data, memory.data() + 8);
  EXPECT_EQ(part[0].bytes, 8U);
  EXPECT_EQ(part[0].tensor, 0);
  EXPECT_EQ(part[1].data, memory.data() + 32);
  EXPECT_EQ(part[1].bytes, 8U);
  EXPECT_EQ(part[1].tensor, 1);
}

}  // namespace
}  // namespace plait
