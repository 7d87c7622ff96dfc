#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_bf16_256() {
  return mma_fold<MmaFold<__nv_bfloat16, 256, 32, 1>>(DType::bf16);
}

}  // namespace plait::cuda
