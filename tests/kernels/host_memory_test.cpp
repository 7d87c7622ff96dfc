// Memory of the host: its alignment, and whether the system was asked for large pages, as Linux itself tells.
#include "plait/host_memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace plait {
namespace {

/// Whether the mapping that holds the address is marked for large pages in /proc/self/smaps.
bool marked_large(void const* address) {
  auto const at = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) here = begin <= at && at < end;
    if (here && line.starts_with("VmFlags:")) return line.find(" hg") != std::string::npos;
  }
  return false;
}

bool aligned(void const* address, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(address) % to == 0;
}

TEST(HostMemory, IsAlignedToLinesAndLargePages) {
  for (std::size_t const bytes :
       {std::size_t{0}, std::size_t{1}, large_page - 1, large_page, 3 * large_page + 5}) {
    std::byte* const memory = allocate_host(bytes);
    EXPECT_TRUE(aligned(memory, 64)) << bytes;
    EXPECT_TRUE(bytes < large_page || aligned(memory, large_page)) << bytes;
    std::fill_n(memory, bytes, std::byte{1});
    free_host(memory, bytes);
  }
  free_host(nullptr, 0);
}

TEST(HostMemory, AsksForLargePages) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "no large pages here";
  std::size_t const bytes = 4 * large_page;
  std::byte* const memory = allocate_host(bytes);
  EXPECT_TRUE(marked_large(memory));
  EXPECT_TRUE(marked_large(memory + bytes - 1));
  free_host(memory, bytes);
}

TEST(HostMemory, VectorsHoldZerosAndMove) {
  HostVector<float> numbers(large_page);
  EXPECT_TRUE(aligned(numbers.data(), large_page));
  EXPECT_TRUE(std::ranges::all_of(numbers, [](float number) { return number == 0.0F; }));
  float const* const before = numbers.data();
  HostVector<float> const moved = std::move(numbers);
  EXPECT_EQ(moved.data(), before);
}

}  // namespace
}  // namespace plait
