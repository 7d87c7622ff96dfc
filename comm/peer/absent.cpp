// Copies between GPUs in a build without CUDA.
#include "transport.hpp"

namespace plait {

PeerTransport make_peer_transport(World const&, void*) {
  return {.transport = nullptr, .refusal = "built without CUDA"};
}

}  // namespace plait
