// CUDA streams and events, owned.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "call.hpp"

namespace plait {

/// Runs beside all other streams.
class CudaStream {
 public:
  CudaStream() { PLAIT_CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  /// Its kernels go first where a multiprocessor becomes free.
  [[nodiscard]] static CudaStream of_highest_priority() {
    int lowest = 0;
    int highest = 0;
    PLAIT_CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    cudaStream_t stream = nullptr;
    PLAIT_CHECK_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest));
    return CudaStream(stream);
  }
  ~CudaStream() {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  CudaStream(CudaStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  CudaStream& operator=(CudaStream&&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  explicit CudaStream(cudaStream_t stream) : stream_(stream) {}

  cudaStream_t stream_ = nullptr;
};

/// Tells no times: such events cost least.
class CudaEvent {
 public:
  CudaEvent() { PLAIT_CHECK_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~CudaEvent() {
    if (event_ != nullptr) (void)cudaEventDestroy(event_);
  }
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&&) = delete;

  void record(cudaStream_t stream) { PLAIT_CHECK_CUDA(cudaEventRecord(event_, stream)); }
  void make_wait(cudaStream_t stream) const { PLAIT_CHECK_CUDA(cudaStreamWaitEvent(stream, event_, 0)); }
  void synchronize() const { PLAIT_CHECK_CUDA(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace plait
