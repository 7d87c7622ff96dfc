// Device memory of one process that others of its host open (CUDA's inter-process memory handles).
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "plait/transport.hpp"

namespace plait {

/// Tells apart all allocations of device memory that the processes of a host ever make.
struct AllocationId {
  std::uint64_t process = 0;  ///< a random number of its own
  std::uint64_t number = 0;   ///< the driver's, which it gives once

  auto operator<=>(AllocationId const&) const = default;
};

/// Rows of one process's device memory, as another one may open them.
struct SharedRows {
  cudaIpcMemHandle_t handle;  ///< of the allocation that it lies in
  AllocationId allocation;
  std::uint64_t offset = 0;  ///< in bytes, of their data in there
  StridedRegion rows;        ///< in the addresses of the process that shares them
};

/// This process's device memory, for others.
class SharedAllocations {
 public:
  /// The rows for others; nothing where their memory cannot be shared: of virtual memory management, of a
  /// pool, or of an allocation so small that it shares its page with others, which one process can map once
  /// only.
  /// @throws CommError if it is not device memory
  [[nodiscard]] std::optional<SharedRows> share(StridedRegion const& rows);

 private:
  std::map<AllocationId, cudaIpcMemHandle_t>
      handles_;  ///< of those that were shared; the driver takes its time
};

/// Other processes' device memory, mapped when it is first asked for. What is mapped is not freed, even if
/// its owner has done so. A process maps an allocation once, for all objects of this kind.
class OpenedMemory {
 public:
  OpenedMemory() = default;
  ~OpenedMemory() { close(); }
  OpenedMemory(OpenedMemory const&) = delete;
  OpenedMemory& operator=(OpenedMemory const&) = delete;

  /// The rows in this process's addresses. @throws CommError if this GPU cannot reach it
  [[nodiscard]] StridedRegion open(SharedRows const& shared);
  /// Allocations that are mapped.
  [[nodiscard]] std::size_t size() const { return at_.size(); }
  /// Maps none from now on. No copy may be under way.
  void close();

 private:
  std::map<AllocationId, std::byte*> at_;
};

}  // namespace plait
