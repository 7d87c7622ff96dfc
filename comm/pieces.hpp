// Scattered pieces of memory as one stream of bytes.
#pragma once

#include <algorithm>
#include <vector>

#include "plait/transport.hpp"

namespace plait {

/// The bytes [begin, begin + length) of the pieces' stream, as regions.
[[nodiscard]] inline std::vector<Region> cut(std::vector<Region> const& pieces, std::size_t begin,
                                             std::size_t length) {
  std::vector<Region> part;
  for (Region const& piece : pieces) {
    if (length == 0) break;
    if (begin >= piece.bytes) {
      begin -= piece.bytes;
      continue;
    }
    std::size_t const bytes = std::min(piece.bytes - begin, length);
    part.push_back({piece.data + begin, bytes});
    length -= bytes;
    begin = 0;
  }
  return part;
}

}  // namespace plait
