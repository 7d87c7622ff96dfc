// An NVIDIA GPU as a device. In a build without CUDA no device is found, and making one says so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plait/device.hpp"

namespace plait {

/// A GPU of this host that this process may use.
struct CudaDeviceInfo {
  int index = 0;
  std::string name;
  std::string pci;  ///< "0000:1b:00.0": tells GPUs of one host apart, whatever each process may see
  int major = 0;    ///< compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::size_t memory_bytes = 0;
};

/// The GPUs that this process sees, in CUDA's order.
[[nodiscard]] std::vector<CudaDeviceInfo> cuda_devices();

/// Empty if GPUs can be used; else why not: "built without CUDA", "no CUDA-capable device is detected".
[[nodiscard]] std::string cuda_unavailable();

/// Folds with a kernel of their own; `generic` serves compute capability 8.0 and later, `hopper` 9.0 alone.
enum class CudaKernel : std::uint8_t { generic, hopper };

[[nodiscard]] std::string_view name(CudaKernel kernel);

struct CudaOptions {
  int index = 0;  ///< of cuda_devices()
  /// Forces a kernel; default: the environment variable PLAIT_CUDA_KERNEL (generic, hopper), else the fastest
  /// that the device and the shape allow.
  std::optional<CudaKernel> kernel = std::nullopt;
};

/// Work is queued on one stream and runs in order; only synchronize, take_marks, upload and download wait for
/// it.
/// @throws Unsupported if there is no such device, or it is older than compute capability 8.0
[[nodiscard]] std::unique_ptr<Device> make_cuda_device(CudaOptions options = {});

}  // namespace plait
