#include "stream_flags.hpp"

#include <cuda.h>
#include <fmt/format.h>

#include <algorithm>

#include "../cuda/driver.hpp"
#include "plait/comm_error.hpp"

namespace plait {
namespace {

using Batch = CUresult (*)(CUstream, unsigned, CUstreamBatchMemOpParams*, unsigned);

}  // namespace

void StreamFlags::write(std::uint64_t* flag, std::uint64_t number) {
  steps_.push_back({.waits = false, .flag = flag, .number = number});
}

void StreamFlags::await(std::uint64_t* flag, std::uint64_t number) {
  steps_.push_back({.waits = true, .flag = flag, .number = number});
}

void StreamFlags::queue() {
  if (steps_.empty()) return;
  static Batch const batch = driver_function<Batch>("cuStreamBatchMemOp");
  std::vector<CUstreamBatchMemOpParams> operations(steps_.size());
  std::ranges::transform(steps_, operations.begin(), [](Step const& step) {
    CUstreamBatchMemOpParams operation{};
    auto const address = reinterpret_cast<CUdeviceptr>(step.flag);
    if (step.waits) {
      operation.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
      operation.waitValue.address = address;
      operation.waitValue.value64 = step.number;
      operation.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    } else {
      operation.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
      operation.writeValue.address = address;
      operation.writeValue.value64 = step.number;
      operation.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    }
    return operation;
  });
  steps_.clear();
  constexpr std::size_t most = 256;  // in one call
  for (std::size_t first = 0; first < operations.size(); first += most) {
    std::size_t const count = std::min(most, operations.size() - first);
    CUresult const code = batch(stream_, static_cast<unsigned>(count), operations.data() + first, 0);
    if (code != CUDA_SUCCESS) {
      throw CommError(fmt::format("cuStreamBatchMemOp: error {} of the CUDA driver", static_cast<int>(code)));
    }
  }
}

}  // namespace plait
