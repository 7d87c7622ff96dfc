// Scattered pieces of device memory, copied as few transfers.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "call.hpp"
#include "plait/transport.hpp"

namespace plait {

/// The bytes [begin, begin + length) of the pieces' stream.
[[nodiscard]] inline std::vector<Region> cut_pieces(std::vector<Region> const& pieces, std::size_t begin,
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

enum class Copy : std::uint8_t { gather, scatter };

/// Copies the pieces to (gather) or from (scatter) one contiguous buffer, which may be host memory. Runs of
/// pieces of one size at one distance, as the heads of a tensor's rows are, become one call.
inline void copy_pieces(Copy direction, std::vector<Region> const& pieces, std::byte* buffer,
                        cudaStream_t stream) {
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t const width = pieces[first].bytes;
    std::size_t last = first + 1;
    std::ptrdiff_t const pitch = last < pieces.size() ? pieces[last].data - pieces[first].data : 0;
    bool const regular = pitch >= static_cast<std::ptrdiff_t>(width);
    while (regular && last < pieces.size() && pieces[last].bytes == width &&
           pieces[last].data - pieces[last - 1].data == pitch) {
      ++last;
    }
    std::size_t const count = last - first;
    std::size_t const spread = regular ? static_cast<std::size_t>(pitch) : width;
    std::byte* const piece = pieces[first].data;
    if (width > 0 && direction == Copy::gather) {
      PLAIT_CHECK_CUDA(
          cudaMemcpy2DAsync(buffer, width, piece, spread, width, count, cudaMemcpyDefault, stream));
    } else if (width > 0) {
      PLAIT_CHECK_CUDA(
          cudaMemcpy2DAsync(piece, spread, buffer, width, width, count, cudaMemcpyDefault, stream));
    }
    buffer += width * count;
    first = last;
  }
}

}  // namespace plait
