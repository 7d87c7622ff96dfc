// Device memory, owned.
#pragma once

#include <cuda_runtime_api.h>

#include "call.hpp"
#include "plait/device.hpp"

namespace plait::cuda {

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) PLAIT_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), bytes));
  }
  ~CudaMemory() override { (void)cudaFree(data_); }
  CudaMemory(CudaMemory const&) = delete;
  CudaMemory& operator=(CudaMemory const&) = delete;

  std::byte* data() const override { return data_; }
  std::size_t bytes() const override { return bytes_; }

 private:
  std::size_t bytes_;
  std::byte* data_ = nullptr;
};

}  // namespace plait::cuda
