// Memory of the host for tensors and states: in large pages where the system gives them on request.
#pragma once

#include <cstddef>
#include <vector>

namespace plait {

/// Uninitialised memory, aligned to 64 bytes. From `large_page` bytes on it is aligned to that, and the
/// system is asked for large pages (Linux: madvise, which counts where transparent huge pages are not off). A
/// fold reads the rows of one head, which lie a row of all heads apart: nearly each in a small page of its
/// own, more of them than a processor's translations hold.
/// @throws std::bad_alloc
[[nodiscard]] std::byte* allocate_host(std::size_t bytes);
/// What allocate_host has returned, with the same bytes; or null.
void free_host(std::byte* memory, std::size_t bytes) noexcept;
constexpr std::size_t large_page = std::size_t{1} << 21;

/// For standard containers. Elements are initialised as the container does it.
template <class T>
struct HostAllocator {
  using value_type = T;

  HostAllocator() = default;
  template <class Other>
  HostAllocator(HostAllocator<Other> const&) noexcept {}

  [[nodiscard]] T* allocate(std::size_t count) {
    return reinterpret_cast<T*>(allocate_host(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    free_host(reinterpret_cast<std::byte*>(memory), count * sizeof(T));
  }
  friend bool operator==(HostAllocator const&, HostAllocator const&) { return true; }
};

template <class T>
using HostVector = std::vector<T, HostAllocator<T>>;

}  // namespace plait
