// A queue of copies between a device's memory and buffers in the host's: all that staging needs of a GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plait/transport.hpp"

namespace plait {

enum class Copy : std::uint8_t { gather, scatter };

/// Copies run in order, beside the device's work and the host's; none of the calls but `await` and
/// `await_all` waits for them.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;

  /// Host memory that copies run fast to and from.
  [[nodiscard]] virtual std::shared_ptr<std::byte> allocate(std::size_t bytes) = 0;

  /// Copies queued from now on follow the device's work queued so far.
  virtual void follow_work() = 0;
  /// The device's work queued from now on follows the copies queued so far.
  virtual void lead_work() = 0;

  /// Queues copies of the rows' stream to (gather) or from (scatter) a contiguous buffer.
  virtual void copy(Copy direction, std::vector<StridedRegion> const& pieces, std::byte* buffer) = 0;

  /// Marks the copies queued so far, in place of those that the mark stood for. @param mark  0 or 1
  virtual void set(std::size_t mark) = 0;
  /// Returns when the copies that the mark stands for are done; at once if it was never set.
  virtual void await(std::size_t mark) = 0;
  /// Returns when all copies queued so far are done.
  virtual void await_all() = 0;
};

/// Copies between one GPU's memory and pinned host memory. @param stream  cudaStream_t of the GPU's work
/// @throws NoTransport in a build without CUDA
[[nodiscard]] std::unique_ptr<CopyQueue> make_cuda_copies(void* stream);

}  // namespace plait
