// GPUs of one host that write straight into each other's memory.
#pragma once

#include <memory>
#include <string>

#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

/// A transport, or why there is none.
struct PeerAttempt {
  std::unique_ptr<Transport> transport = nullptr;
  std::string refusal = {};
};

/// Copy engines move what is sent, over NVLink where there is some, and no multiprocessor takes part. Ranks
/// may share a GPU. Each rank's GPU is the calling thread's current device. Collective, also where it is
/// refused: then on every rank, with the same words. @param stream  cudaStream_t of the work that exchanges
/// take their place among @throws CommError, PeerLost
[[nodiscard]] PeerAttempt make_peer_transport(World const& world, void* stream);

}  // namespace plait
