// Scattered pieces of device memory, copied as few transfers.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

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

/// Pieces from `first` on that have one size and lie one distance apart, as the heads of a tensor's rows do.
/// The copy of such a run may not leave an allocation, so pieces that lie far apart are not taken for one.
[[nodiscard]] inline std::size_t run_length(std::vector<Region> const& pieces, std::size_t first) {
  constexpr std::ptrdiff_t most_widths_apart = 4096;
  if (first + 1 >= pieces.size()) return 1;
  auto const width = static_cast<std::ptrdiff_t>(pieces[first].bytes);
  std::ptrdiff_t const pitch = pieces[first + 1].data - pieces[first].data;
  if (width == 0 || pitch < width || pitch > most_widths_apart * width) return 1;
  std::size_t last = first + 1;
  while (last < pieces.size() && pieces[last].bytes == pieces[first].bytes &&
         pieces[last].data - pieces[last - 1].data == pitch) {
    ++last;
  }
  return last - first;
}

/// Copies the pieces to (gather) or from (scatter) one contiguous buffer, which may be host memory.
inline void copy_pieces(Copy direction, std::vector<Region> const& pieces, std::byte* buffer,
                        cudaStream_t stream) {
  constexpr std::size_t short_run = 4;  // two tensors' pieces may look like one; a run of many does not
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t const count = run_length(pieces, first);
    std::size_t const width = pieces[first].bytes;
    if (count < short_run) {
      for (std::size_t i = 0; i < count; ++i) {
        if (width > 0) copy_piece(direction, pieces[first + i], buffer + i * width, stream);
      }
    } else {
      auto const pitch = static_cast<std::size_t>(pieces[first + 1].data - pieces[first].data);
      copy_rows(direction, pieces[first].data, pitch, width, count, buffer, stream);
    }
    buffer += width * count;
    first += count;
  }
}

}  // namespace plait
