// Device memory in a build without CUDA.
#include "plait/transport_choice.hpp"
#include "staged_transport.hpp"

namespace plait {

std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport>, void*) {
  throw NoTransport("device memory: built without CUDA");
}

}  // namespace plait
