// The generic kernels that are compiled, one file each: compute capability 8.0 and later, any head
// dimensions up to 256, any strides.
#pragma once

#include "../fold_kernel.hpp"

namespace plait::cuda {

/// The smallest compiled kernel that holds the shape's head dimensions, each at most 256.
[[nodiscard]] FoldKernel generic_kernel(FoldShape const& shape);

// By element type, and by the larger of the two head dimensions that fits.
[[nodiscard]] FoldKernel generic_f32_64();
[[nodiscard]] FoldKernel generic_f32_128();
[[nodiscard]] FoldKernel generic_f32_256();
[[nodiscard]] FoldKernel generic_f16_64();
[[nodiscard]] FoldKernel generic_f16_128();
[[nodiscard]] FoldKernel generic_f16_256();
[[nodiscard]] FoldKernel generic_bf16_64();
[[nodiscard]] FoldKernel generic_bf16_128();
[[nodiscard]] FoldKernel generic_bf16_256();

}  // namespace plait::cuda
