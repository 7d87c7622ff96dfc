// Rows of memory as one stream of bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "plait/transport.hpp"

namespace plait {

/// The bytes [begin, begin + length) of the stream, as rows, as far as it goes.
[[nodiscard]] inline std::vector<StridedRegion> cut(std::vector<StridedRegion> const& stream,
                                                    std::size_t begin, std::size_t length) {
  std::vector<StridedRegion> part;
  for (StridedRegion const& piece : stream) {
    if (begin >= piece.bytes()) {
      begin -= piece.bytes();
      continue;
    }
    std::size_t left = std::min(piece.bytes() - begin, length);
    length -= left;
    std::size_t row = begin / piece.width;
    std::size_t const column = begin % piece.width;
    begin = 0;
    if (column > 0 && left > 0) {  // the rest of a row
      std::size_t const width = std::min(piece.width - column, left);
      part.push_back({piece.row(row++) + column, width});
      left -= width;
    }
    if (std::size_t const rows = left / piece.width; rows > 0) {
      part.push_back({piece.row(row), piece.width, piece.pitch, rows});
      row += rows;
      left -= rows * piece.width;
    }
    if (left > 0) part.push_back({piece.row(row), left});
    if (length == 0) break;
  }
  return part;
}

}  // namespace plait
