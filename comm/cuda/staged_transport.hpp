// A transport of host memory made to serve device memory: everything passes through pinned buffers, in
// chunks, so that copies and messages overlap.
#pragma once

#include <memory>

#include "plait/transport.hpp"

namespace plait {

/// @param inner   moves host memory
/// @param stream  cudaStream_t of the work that exchanges take their place among
/// @throws NoTransport in a build without CUDA
[[nodiscard]] std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner,
                                                               void* stream);

}  // namespace plait
