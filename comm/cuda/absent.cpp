// Device memory in a build without CUDA.
#include "../staging/copy_queue.hpp"
#include "plait/transport_choice.hpp"

namespace plait {

std::unique_ptr<CopyQueue> make_cuda_copies(void*) {
  throw NoTransport("device memory: built without CUDA");
}

}  // namespace plait
