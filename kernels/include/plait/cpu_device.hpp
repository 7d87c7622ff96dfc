// The CPU as a device: OpenMP inside a rank, the vector instructions chosen at run time.
#pragma once

#include <optional>
#include <vector>

#include "plait/device.hpp"

namespace plait {

/// Instruction sets with a fold of their own; `scalar` is the reference path. Those of 16-bit types multiply
/// in fp32, but avx512_bf16 (VDPBF16PS) and amx_bf16 (tiles) multiply bf16 as it is; they fold the other
/// types as avx512 does.
enum class CpuIsa : std::uint8_t { scalar, avx2, avx512, avx512_bf16, amx_bf16 };

[[nodiscard]] std::string_view name(CpuIsa isa);

/// The paths that this processor can run, slowest first.
[[nodiscard]] std::vector<CpuIsa> supported_isas();

struct CpuOptions {
  /// Threads of this rank; 0 = OpenMP's default.
  int threads = 0;
  /// Forces a path; default: the environment variable PLAIT_CPU_ISA (a path's name), else the fastest.
  std::optional<CpuIsa> isa = std::nullopt;
};

/// @throws Unsupported if the path asked for is unknown or this processor cannot run it
[[nodiscard]] std::unique_ptr<Device> make_cpu_device(CpuOptions options = {});

}  // namespace plait
