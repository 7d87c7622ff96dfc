// Device memory of one process that others of its host open (CUDA's inter-process memory handles).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "runs.hpp"

namespace plait {

/// A run of one process's device memory, as another one may open it.
struct SharedRun {
  cudaIpcMemHandle_t handle;     ///< of the allocation that it lies in
  std::uint64_t allocation = 0;  ///< which no other allocation of its process ever has
  std::uint64_t offset = 0;      ///< in bytes, of its data in there
  std::uint64_t address = 0;     ///< in the process that shares it
  std::uint64_t width = 0;
  std::uint64_t pitch = 0;
  std::uint64_t rows = 0;
};

/// The run for others; nothing where its memory cannot be shared: of virtual memory management, of a pool, or
/// of an allocation so small that it shares its page with others, which one process can map once only.
/// @throws CommError if it is not device memory
[[nodiscard]] std::optional<SharedRun> share(RowRun const& run);

/// Other ranks' device memory, mapped when it is first asked for. What is mapped is not freed, even if its
/// owner has done so.
class OpenedMemory {
 public:
  /// @param rank  this process's own, whose memory needs no mapping
  explicit OpenedMemory(int rank) : rank_(rank) {}
  ~OpenedMemory() { close(); }
  OpenedMemory(OpenedMemory const&) = delete;
  OpenedMemory& operator=(OpenedMemory const&) = delete;

  /// The run of `rank` in this process's addresses. @throws CommError if this GPU cannot reach it
  [[nodiscard]] RowRun open(int rank, SharedRun const& shared);
  /// Allocations that are mapped.
  [[nodiscard]] std::size_t size() const { return at_.size(); }
  /// Maps none from now on. No copy may be under way.
  void close();

 private:
  int rank_;
  std::map<std::pair<int, std::uint64_t>, std::byte*> at_;  ///< by rank and allocation
};

}  // namespace plait
