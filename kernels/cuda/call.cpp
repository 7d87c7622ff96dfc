#include "call.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <new>

namespace plait::cuda {

void throw_error(cudaError_t code, char const* call, std::source_location where) {
  (void)cudaGetLastError();  // an error that does not stick must not be reported again by a later call
  if (code == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw CudaError(fmt::format("{} at {}:{}: {} ({})", call,
                              std::filesystem::path(where.file_name()).filename().string(), where.line(),
                              cudaGetErrorString(code), cudaGetErrorName(code)));
}

}  // namespace plait::cuda
