// Copies between GPUs in a build without CUDA.
#include "transport.hpp"

namespace plait {

PeerAttempt make_peer_transport(World const&, void*) {
  return {.refusal = "built without CUDA"};
}

}  // namespace plait
