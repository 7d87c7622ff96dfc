#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_f16_128() {
  return mma_fold<MmaFold<__half, 128, 64, 2>>(DType::f16);
}

}  // namespace plait::cuda
