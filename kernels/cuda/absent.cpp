// The CUDA device of a build without CUDA.
#include "plait/cuda_device.hpp"

namespace plait {

std::vector<CudaDeviceInfo> cuda_devices() {
  return {};
}

std::string cuda_unavailable() {
  return "built without CUDA";
}

std::unique_ptr<Device> make_cuda_device(CudaOptions) {
  throw Unsupported("device cuda: built without CUDA; a build on a machine with the CUDA toolkit has it");
}

}  // namespace plait
