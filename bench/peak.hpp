// What this machine can do at most: the bounds that a fold's rate is a share of.
#pragma once

#include <vector>

#include "plait/cpu_device.hpp"

namespace plait {

/// FLOP/s of one thread's independent multiply-adds in registers, over about `seconds`: VDPBF16PS or
/// TDPBF16PS for bf16 on the paths that have them, else fused fp32 multiply-adds of the path's width.
[[nodiscard]] double multiply_flops_per_second(CpuIsa isa, DType dtype, double seconds);

/// Reads memory far beyond the caches, in order, with several threads.
class MemoryReader {
 public:
  explicit MemoryReader(int threads);
  /// Bytes per second of one pass.
  [[nodiscard]] double bytes_per_second();

 private:
  int threads_;
  std::vector<std::uint64_t> memory_;
  std::uint64_t volatile kept_ = 0;  ///< so that the pass is not optimised away
};

}  // namespace plait
