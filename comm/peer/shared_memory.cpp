#include "shared_memory.hpp"

#include <cuda.h>

#include <mutex>
#include <random>

#include "../cuda/call.hpp"
#include "../cuda/driver.hpp"
#include "../cuda/scratch.hpp"
#include "plait/comm_error.hpp"

namespace plait {
namespace {

using Attributes = CUresult (*)(unsigned, CUpointer_attribute*, void**, CUdeviceptr);

/// What the driver knows of the allocation that an address lies in.
struct Allocation {
  CUdeviceptr begin = 0;
  std::size_t bytes = 0;
  unsigned long long id = 0;
  int can_be_shared = 0;
};

Allocation allocation_of(std::byte const* data) {
  static auto const attributes = driver_function<Attributes>("cuPointerGetAttributes");
  Allocation found;
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                 CU_POINTER_ATTRIBUTE_BUFFER_ID,
                                 CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE};
  void* answers[] = {&found.begin, &found.bytes, &found.id, &found.can_be_shared};
  CUresult const code = attributes(4, asked, answers, reinterpret_cast<CUdeviceptr>(data));
  if (code != CUDA_SUCCESS || found.begin == 0) throw CommError("a message does not lie in device memory");
  return found;
}

/// This process's number: process ids repeat between containers of one host.
std::uint64_t process_number() {
  static std::uint64_t const number = [] {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
  }();
  return number;
}

/// All allocations that this process maps. The driver refuses to map one twice.
class Mappings {
 public:
  static Mappings& of_this_process() {
    static Mappings mappings;
    return mappings;
  }

  std::byte* take(SharedRows const& shared) {
    std::lock_guard const lock(mutex_);
    auto found = at_.find(shared.allocation);
    if (found == at_.end()) {
      void* data = nullptr;
      PLAIT_CHECK_CUDA(cudaIpcOpenMemHandle(&data, shared.handle, cudaIpcMemLazyEnablePeerAccess));
      found = at_.emplace(shared.allocation, Mapping{static_cast<std::byte*>(data)}).first;
    }
    ++found->second.users;
    return found->second.data;
  }
  void give_back(AllocationId const& allocation) {
    std::lock_guard const lock(mutex_);
    auto const found = at_.find(allocation);
    if (--found->second.users > 0) return;
    (void)cudaIpcCloseMemHandle(found->second.data);
    at_.erase(found);
  }

 private:
  struct Mapping {
    std::byte* data = nullptr;
    int users = 0;
  };
  std::mutex mutex_;
  std::map<AllocationId, Mapping> at_;
};

}  // namespace

std::optional<SharedRows> SharedAllocations::share(StridedRegion const& rows) {
  Allocation const allocation = allocation_of(rows.data);
  if (allocation.can_be_shared == 0 || allocation.bytes < Scratch::page_bytes) return std::nullopt;
  AllocationId const id{process_number(), allocation.id};
  auto found = handles_.find(id);
  if (found == handles_.end()) {
    constexpr std::size_t most_handles = 256;  // of allocations that may have been freed
    if (handles_.size() >= most_handles) handles_.clear();
    cudaIpcMemHandle_t handle{};
    PLAIT_CHECK_CUDA(cudaIpcGetMemHandle(&handle, reinterpret_cast<void*>(allocation.begin)));
    found = handles_.emplace(id, handle).first;
  }
  return SharedRows{.handle = found->second,
                    .allocation = id,
                    .offset = reinterpret_cast<std::uint64_t>(rows.data) - allocation.begin,
                    .rows = rows};
}

StridedRegion OpenedMemory::open(SharedRows const& shared) {
  StridedRegion rows = shared.rows;
  if (shared.allocation.process == process_number()) return rows;
  auto found = at_.find(shared.allocation);
  if (found == at_.end()) {
    found = at_.emplace(shared.allocation, Mappings::of_this_process().take(shared)).first;
  }
  rows.data = found->second + shared.offset;
  return rows;
}

void OpenedMemory::close() {
  for (auto const& [allocation, data] : at_) Mappings::of_this_process().give_back(allocation);
  at_.clear();
}

}  // namespace plait
