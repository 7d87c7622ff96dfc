// Device memory for messages that do not lie in one piece.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "call.hpp"

namespace plait {

/// Device memory that only grows, in pages of its own.
class Scratch {
 public:
  static constexpr std::size_t page_bytes = std::size_t{2} << 20;  ///< smaller allocations share theirs

  Scratch() = default;
  ~Scratch() { (void)cudaFree(data_); }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;

  /// Waits for all work on it where it must grow.
  std::byte* at_least(std::size_t bytes) {
    bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes;
    if (bytes > bytes_) {
      PLAIT_CHECK_CUDA(cudaFree(std::exchange(data_, nullptr)));
      bytes_ = 0;
      PLAIT_CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), bytes));
      bytes_ = bytes;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace plait
