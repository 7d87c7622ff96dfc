// The Hopper kernels that are compiled, one file each.
#pragma once

#include "../fold_kernel.hpp"

namespace plait::cuda {

/// The smallest compiled kernel that holds the shape's head dimensions. `banded`: see choose_fold_kernel.
[[nodiscard]] FoldKernel hopper_kernel(FoldShape const& shape, bool banded);

}  // namespace plait::cuda
