#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_f16_256() {
  return mma_fold<MmaFold<__half, 256, 32, 1>>(DType::f16);
}

}  // namespace plait::cuda
