// Scattered pieces of memory as one stream of bytes.
#pragma once

#include <algorithm>
#include <cstddef>
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
    part.push_back({piece.data + begin, bytes, piece.tensor});
    length -= bytes;
    begin = 0;
  }
  return part;
}

/// Pieces of one tensor, from `first` on, that have one size and lie one distance apart, as the heads of a
/// tensor's rows do.
[[nodiscard]] inline std::size_t run_length(std::vector<Region> const& pieces, std::size_t first) {
  constexpr std::ptrdiff_t largest_pitch = std::ptrdiff_t{1} << 30;  // devices take up to 2^31 − 1
  if (first + 1 >= pieces.size() || pieces[first].bytes == 0) return 1;
  std::ptrdiff_t const pitch = pieces[first + 1].data - pieces[first].data;
  if (pitch < static_cast<std::ptrdiff_t>(pieces[first].bytes) || pitch > largest_pitch) return 1;
  std::size_t last = first + 1;
  while (last < pieces.size() && pieces[last].tensor == pieces[first].tensor &&
         pieces[last].bytes == pieces[first].bytes && pieces[last].data - pieces[last - 1].data == pitch) {
    ++last;
  }
  return last - first;
}

}  // namespace plait
