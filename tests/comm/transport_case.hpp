// What the transports' tests send: contents that tell blocks and places apart, cut into random pieces.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait::test {

using Bytes = std::vector<std::byte>;

/// Content that depends on the block and the place.
inline std::byte content(std::uint64_t block, std::size_t i) {
  return static_cast<std::byte>((block * 131 + i * 7 + (i >> 8)) & 0xff);
}

inline Bytes filled(std::uint64_t block, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = content(block, i);
  return bytes;
}

inline StridedRegion one_piece(Region memory) {
  return {memory.data, memory.bytes};
}

/// The memory cut at random places, some pieces empty.
inline std::vector<StridedRegion> random_cut(Region memory, std::mt19937& random) {
  std::vector<StridedRegion> pieces;
  std::size_t at = 0;
  while (at < memory.bytes && pieces.size() <= 20) {
    std::size_t const size = std::uniform_int_distribution<std::size_t>(0, memory.bytes - at)(random);
    pieces.push_back({memory.data + at, size});
    at += size;
  }
  pieces.push_back({memory.data + at, memory.bytes - at});
  return pieces;
}

/// Rows of a tensor's heads: pieces of one size, one distance apart, with as much again between them.
inline StridedRegion rows_of(Region memory, std::size_t row_bytes) {
  return {memory.data, row_bytes, 2 * row_bytes, memory.bytes / (2 * row_bytes)};
}

/// Each row as a piece of its own, in the order in which they are sent.
inline std::vector<Region> regions_of(std::vector<StridedRegion> const& pieces) {
  std::vector<Region> regions;
  for (StridedRegion const& piece : pieces) {
    for (std::size_t row = 0; row < piece.rows; ++row) regions.push_back({piece.row(row), piece.width});
  }
  return regions;
}

/// What is sent of them.
inline Bytes stream_of(std::vector<StridedRegion> const& pieces) {
  Bytes stream;
  for (Region const& region : regions_of(pieces)) {
    stream.insert(stream.end(), region.data, region.data + region.bytes);
  }
  return stream;
}

inline int neighbour(World const& world, int distance) {
  return (world.rank() + distance + world.size()) % world.size();
}

/// One message of a random exchange.
struct RandomMessage {
  int from = 0;
  int to = 0;
  std::uint64_t block = 0;
  std::size_t bytes = 0;
};

/// Messages between any ranks, several between the same two, some of 0 bytes, sometimes none: drawn alike on
/// all ranks from a generator that all seed alike.
inline std::vector<RandomMessage> random_messages(int ranks, std::size_t most_bytes, std::mt19937& random) {
  auto const draw = [&](std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(0, most)(random);
  };
  std::vector<RandomMessage> messages(draw(10));
  for (std::size_t i = 0; i < messages.size(); ++i) {
    messages[i] = {.from = static_cast<int>(draw(static_cast<std::size_t>(ranks) - 1)),
                   .to = static_cast<int>(draw(static_cast<std::size_t>(ranks) - 1)),
                   .block = i,
                   .bytes = draw(4) == 0 ? 0 : draw(most_bytes)};
  }
  return messages;
}

}  // namespace plait::test
