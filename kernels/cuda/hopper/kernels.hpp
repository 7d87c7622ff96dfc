// The Hopper kernels that are compiled: one file for each of dtype × head dimensions × {full, banded}.
#pragma once

#include "../fold_kernel.hpp"

namespace plait::cuda {

/// The smallest compiled kernel that holds the shape's head dimensions. `banded`: see choose_fold_kernel.
[[nodiscard]] FoldKernel hopper_kernel(FoldShape const& shape, bool banded);

namespace hopper {

/// Instantiated from launch.cu.in. @throws CudaError; std::invalid_argument if a tensor is not aligned to 16
/// bytes
template <DType dtype, int head_dim, int value_dim, bool banded>
void launch(FoldArgs const& args, cudaStream_t stream);

}  // namespace hopper
}  // namespace plait::cuda
