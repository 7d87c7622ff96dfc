#include "fold_kernel.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "generic/kernels.hpp"
#include "hopper/kernels.hpp"

namespace plait {

std::string_view name(CudaKernel kernel) {
  return kernel == CudaKernel::hopper ? "hopper" : "generic";
}

namespace cuda {
namespace {

constexpr Index largest_dim = 256;

std::optional<CudaKernel> kernel_from_environment() {
  char const* const variable = std::getenv("PLAIT_CUDA_KERNEL");
  if (variable == nullptr) return std::nullopt;
  for (CudaKernel const kind : {CudaKernel::generic, CudaKernel::hopper}) {
    if (name(kind) == variable) return kind;
  }
  throw Unsupported(fmt::format("PLAIT_CUDA_KERNEL={}: must be generic or hopper", variable));
}

/// Why the Hopper kernels can't do a fold; empty if they can.
std::string hopper_refuses(CudaDeviceInfo const& device, FoldShape const& shape) {
  if (device.major != 9)
    return fmt::format("needs compute capability 9.0, this is {}.{}", device.major, device.minor);
  if (shape.dtype == DType::f32) return "takes f16 and bf16, not f32";
  if (shape.head_dim % 8 != 0 || shape.value_dim % 8 != 0)
    return "needs head dimensions that are multiples of 8";
  return {};
}

}  // namespace

std::string FoldKernel::describe() const {
  return fmt::format("{} {} {}×{}, tiles of {} queries × {} keys", name(kind), plait::name(dtype), head_dim,
                     value_dim, tile_rows, key_block);
}

FoldKernel choose_fold_kernel(CudaDeviceInfo const& device, FoldShape const& shape, bool banded,
                              std::optional<CudaKernel> forced) {
  if (shape.head_dim < 1 || shape.head_dim > largest_dim || shape.value_dim < 1 ||
      shape.value_dim > largest_dim) {
    throw Unsupported(
        fmt::format("head dimensions {} and {}: the GPU folds 1 to {}; --device cpu does larger ones",
                    shape.head_dim, shape.value_dim, largest_dim));
  }
  if (!forced) forced = kernel_from_environment();
  std::string const refusal = hopper_refuses(device, shape);
  if (forced == CudaKernel::hopper && !refusal.empty()) {
    throw Unsupported(fmt::format("the hopper kernel {}", refusal));
  }
  if (refusal.empty() && forced != CudaKernel::generic) return hopper_kernel(shape, banded);
  return generic_kernel(shape);
}

}  // namespace cuda
}  // namespace plait
