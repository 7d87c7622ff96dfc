// Functions of CUDA's driver: libcuda comes with it, and builds have none, so they are found when they run.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "call.hpp"
#include "plait/comm_error.hpp"

namespace plait {

/// @throws CommError if this driver has no such function
template <class Function>
[[nodiscard]] Function driver_function(char const* name) {
  constexpr unsigned version = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  PLAIT_CHECK_CUDA(cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) throw CommError(std::string("this driver has no ") + name);
  return reinterpret_cast<Function>(function);
}

}  // namespace plait
