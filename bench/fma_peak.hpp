// The fp32 multiply-add rate of one thread, by instruction set: the bound that a fold's rate is a share of.
#pragma once

#include "plait/cpu_device.hpp"

namespace plait {

/// FLOP/s of independent fused multiply-adds in registers, over about `seconds`.
[[nodiscard]] double fma_flops_per_second(CpuIsa isa, double seconds);

}  // namespace plait
