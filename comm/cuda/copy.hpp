// Scattered pieces of device memory, copied as few transfers.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "../pieces.hpp"
#include "../staging/copy_queue.hpp"
#include "call.hpp"

namespace plait {

/// `count` rows of `width` bytes, `pitch` apart, to (gather) or from (scatter) a contiguous buffer.
inline void copy_rows(Copy direction, std::byte* rows, std::size_t pitch, std::size_t width,
                      std::size_t count, std::byte* buffer, cudaStream_t stream) {
  if (direction == Copy::gather) {
    PLAIT_CHECK_CUDA(cudaMemcpy2DAsync(buffer, width, rows, pitch, width, count, cudaMemcpyDefault, stream));
  } else {
    PLAIT_CHECK_CUDA(cudaMemcpy2DAsync(rows, pitch, buffer, width, width, count, cudaMemcpyDefault, stream));
  }
}
inline void copy_piece(Copy direction, Region const& piece, std::byte* buffer, cudaStream_t stream) {
  bool const gathers = direction == Copy::gather;
  PLAIT_CHECK_CUDA(cudaMemcpyAsync(gathers ? buffer : piece.data, gathers ? piece.data : buffer, piece.bytes,
                                   cudaMemcpyDefault, stream));
}

/// Copies the pieces to (gather) or from (scatter) one contiguous buffer, which may be host memory.
inline void copy_pieces(Copy direction, std::vector<Region> const& pieces, std::byte* buffer,
                        cudaStream_t stream) {
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t const count = run_length(pieces, first);
    std::size_t const width = pieces[first].bytes;
    if (count == 1) {
      if (width > 0) copy_piece(direction, pieces[first], buffer, stream);
    } else {
      auto const pitch = static_cast<std::size_t>(pieces[first + 1].data - pieces[first].data);
      copy_rows(direction, pieces[first].data, pitch, width, count, buffer, stream);
    }
    buffer += width * count;
    first += count;
  }
}

}  // namespace plait
