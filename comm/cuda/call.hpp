// Calls into CUDA made by transports.
#pragma once

#include <cuda_runtime_api.h>

namespace plait {

/// @throws CommError with the call and CUDA's own words
void check_cuda(cudaError_t code, char const* call);

}  // namespace plait

#define PLAIT_CHECK_CUDA(call) ::plait::check_cuda((call), #call)
