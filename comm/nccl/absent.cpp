// NCCL in a build without it.
#include "plait/transport_choice.hpp"
#include "transport.hpp"

namespace plait {

std::unique_ptr<Transport> make_nccl_transport(World const&, void*) {
  throw NoTransport("transport nccl: this build has no NCCL");
}

std::string nccl_version() {
  return {};
}

}  // namespace plait
