#include "shared_memory.hpp"

#include <cuda.h>

#include "../cuda/call.hpp"
#include "../cuda/scratch.hpp"
#include "plait/comm_error.hpp"

namespace plait {
namespace {

/// libcuda comes with the driver, and builds have none: its functions are found when they run.
using Attributes = CUresult (*)(unsigned, CUpointer_attribute*, void**, CUdeviceptr);

Attributes pointer_attributes() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  PLAIT_CHECK_CUDA(cudaGetDriverEntryPointByVersion("cuPointerGetAttributes", &function, 12000,
                                                    cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) throw CommError("this driver has no cuPointerGetAttributes");
  return reinterpret_cast<Attributes>(function);
}

/// What the driver knows of the allocation that an address lies in.
struct Allocation {
  CUdeviceptr begin = 0;
  unsigned long long id = 0;
  std::size_t bytes = 0;
  int can_be_shared = 0;
};

Allocation allocation_of(std::byte const* data) {
  static Attributes const attributes = pointer_attributes();
  Allocation found;
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_BUFFER_ID,
                                 CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                 CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE};
  void* answers[] = {&found.begin, &found.id, &found.bytes, &found.can_be_shared};
  CUresult const code = attributes(4, asked, answers, reinterpret_cast<CUdeviceptr>(data));
  if (code != CUDA_SUCCESS || found.begin == 0) throw CommError("a message does not lie in device memory");
  return found;
}

}  // namespace

std::optional<SharedRun> share(RowRun const& run) {
  Allocation const allocation = allocation_of(run.data);
  if (allocation.can_be_shared == 0 || allocation.bytes < Scratch::page_bytes) return std::nullopt;
  auto const address = reinterpret_cast<std::uint64_t>(run.data);
  SharedRun shared{.handle = {},
                   .allocation = allocation.id,
                   .offset = address - allocation.begin,
                   .address = address,
                   .width = run.width,
                   .pitch = run.pitch,
                   .rows = run.rows};
  PLAIT_CHECK_CUDA(cudaIpcGetMemHandle(&shared.handle, reinterpret_cast<void*>(allocation.begin)));
  return shared;
}

void OpenedMemory::close() {
  for (auto const& [which, data] : at_) (void)cudaIpcCloseMemHandle(data);
  at_.clear();
}

RowRun OpenedMemory::open(int rank, SharedRun const& shared) {
  RowRun run{.data = reinterpret_cast<std::byte*>(shared.address),
             .width = shared.width,
             .pitch = shared.pitch,
             .rows = shared.rows};
  if (rank == rank_) return run;
  auto const which = std::pair(rank, shared.allocation);
  auto found = at_.find(which);
  if (found == at_.end()) {
    void* mapped = nullptr;
    PLAIT_CHECK_CUDA(cudaIpcOpenMemHandle(&mapped, shared.handle, cudaIpcMemLazyEnablePeerAccess));
    found = at_.emplace(which, static_cast<std::byte*>(mapped)).first;
  }
  run.data = found->second + shared.offset;
  return run;
}

}  // namespace plait
