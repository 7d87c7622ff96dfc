// Launchers of the kernels that work on states alone; each is bound by memory bandwidth.
#pragma once

#include <cuda_runtime_api.h>

#include "plait/device.hpp"

namespace plait::cuda {

/// into ← (identity or into) ⊕ from, with the program's one merge (state.hpp). @throws CudaError
void launch_merge(StateView const& from, StateView const& into, Start start, cudaStream_t stream);

/// As Device::finish. @throws CudaError
void launch_finish(StateView const& state, Output const& output, cudaStream_t stream);

}  // namespace plait::cuda
