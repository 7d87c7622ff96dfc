// One stream of bytes, copied between two layouts of rows.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "plait/transport.hpp"

namespace plait {

/// Rows of `width` bytes from one place to another, as a copy engine takes them.
struct RowCopy {
  std::byte const* from = nullptr;
  std::size_t from_pitch = 0;
  std::byte* into = nullptr;
  std::size_t into_pitch = 0;
  std::size_t width = 0;
  std::size_t rows = 0;
};

/// Copies that move the stream of `from` into that of `into`, few where both have rows of one size or one
/// lies in one piece. @throws std::logic_error if the two are not of one length
[[nodiscard]] std::vector<RowCopy> copies_between(std::span<StridedRegion const> from,
                                                  std::span<StridedRegion const> into);

}  // namespace plait
