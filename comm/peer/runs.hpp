// Memory as rows of one size, one distance apart, and one stream of bytes copied between two such layouts.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "plait/transport.hpp"

namespace plait {

/// `rows` pieces of `width` bytes whose beginnings lie `pitch` apart.
struct RowRun {
  std::byte* data = nullptr;
  std::size_t width = 0;
  std::size_t pitch = 0;
  std::size_t rows = 0;
};

/// Rows of `width` bytes from one place to another, as a copy engine takes them.
struct RowCopy {
  std::byte const* from = nullptr;
  std::size_t from_pitch = 0;
  std::byte* into = nullptr;
  std::size_t into_pitch = 0;
  std::size_t width = 0;
  std::size_t rows = 0;
};

/// The pieces, in order, as few runs; pieces of 0 bytes are left out.
[[nodiscard]] std::vector<RowRun> runs_of(std::vector<Region> const& pieces);

/// Copies that move the stream of `from` into that of `into`, few where both have rows of one size or one
/// lies in one piece. @throws std::logic_error if the two are not of one length
[[nodiscard]] std::vector<RowCopy> copies_between(std::span<RowRun const> from, std::span<RowRun const> into);

}  // namespace plait
