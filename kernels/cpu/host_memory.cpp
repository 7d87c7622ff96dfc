#include "plait/host_memory.hpp"

#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace plait {
namespace {

std::align_val_t alignment_of(std::size_t bytes) {
  constexpr std::size_t line = 64;
  return std::align_val_t{bytes >= large_page ? large_page : line};
}

}  // namespace

std::byte* allocate_host(std::size_t bytes) {
  auto* const memory = static_cast<std::byte*>(::operator new(bytes, alignment_of(bytes)));
#ifdef __linux__
  // A request: where it is refused, small pages serve too. Whole large pages alone, others may use the rest.
  if (bytes >= large_page) (void)::madvise(memory, bytes / large_page * large_page, MADV_HUGEPAGE);
#endif
  return memory;
}

void free_host(std::byte* memory, std::size_t bytes) noexcept {
  ::operator delete(memory, alignment_of(bytes));
}

}  // namespace plait
