#include "call.hpp"

#include <fmt/format.h>

#include "plait/comm_error.hpp"

namespace plait {

void check_cuda(cudaError_t code, char const* call) {
  if (code == cudaSuccess) return;
  throw CommError(fmt::format("{}: {} ({})", call, cudaGetErrorString(code), cudaGetErrorName(code)));
}

}  // namespace plait
