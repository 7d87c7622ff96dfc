// Calls into CUDA that throw what failed: the call, the place in the code, and CUDA's own words.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <stdexcept>

namespace plait::cuda {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] void throw_error(cudaError_t code, char const* call, std::source_location where);

inline void check(cudaError_t code, char const* call,
                  std::source_location where = std::source_location::current()) {
  if (code != cudaSuccess) throw_error(code, call, where);
}

}  // namespace plait::cuda

/// Runs a CUDA runtime call. @throws CudaError; std::bad_alloc if the device's memory is exhausted
#define PLAIT_CUDA(call) ::plait::cuda::check((call), #call)
