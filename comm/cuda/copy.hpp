// Rows of device memory, copied as few transfers.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "../staging/copy_queue.hpp"
#include "call.hpp"
#include "plait/transport.hpp"

namespace plait {

/// Queues a copy of `rows` rows of `width` bytes, which lie so far apart.
inline void copy_rows(std::byte const* from, std::size_t from_pitch, std::byte* into, std::size_t into_pitch,
                      std::size_t width, std::size_t rows, cudaStream_t stream) {
  constexpr std::size_t largest_pitch = std::size_t{1} << 30;  // devices take up to 2^31 − 1
  if (rows > 1 && std::max(from_pitch, into_pitch) <= largest_pitch) {
    PLAIT_CHECK_CUDA(
        cudaMemcpy2DAsync(into, into_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, stream));
    return;
  }
  for (std::size_t row = 0; row < rows; ++row) {
    PLAIT_CHECK_CUDA(
        cudaMemcpyAsync(into + row * into_pitch, from + row * from_pitch, width, cudaMemcpyDefault, stream));
  }
}

/// Queues copies of the rows' stream to (gather) or from (scatter) one contiguous buffer, which may be host
/// memory.
inline void copy_stream(Copy direction, std::vector<StridedRegion> const& pieces, std::byte* buffer,
                        cudaStream_t stream) {
  for (StridedRegion const& piece : pieces) {
    if (piece.bytes() == 0) continue;
    if (direction == Copy::gather) {
      copy_rows(piece.data, piece.pitch, buffer, piece.width, piece.width, piece.rows, stream);
    } else {
      copy_rows(buffer, piece.width, piece.data, piece.pitch, piece.width, piece.rows, stream);
    }
    buffer += piece.bytes();
  }
}

}  // namespace plait
