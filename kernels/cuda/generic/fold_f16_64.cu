#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_f16_64() {
  return mma_fold<MmaFold<__half, 64, 64, 3>>(DType::f16);
}

}  // namespace plait::cuda
