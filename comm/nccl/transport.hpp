// NCCL as a transport between GPUs.
#pragma once

#include <memory>

#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

/// One NCCL communicator over the world's ranks, each with a GPU: the calling thread's current device.
/// Collective. @param stream  cudaStream_t of the work that exchanges take their place among
/// @throws CommError, PeerLost; NoTransport in a build without NCCL
[[nodiscard]] std::unique_ptr<Transport> make_nccl_transport(World const& world, void* stream);

}  // namespace plait
