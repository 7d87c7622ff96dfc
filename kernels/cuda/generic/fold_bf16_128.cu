#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_bf16_128() {
  return mma_fold<MmaFold<__nv_bfloat16, 128, 64, 2>>(DType::bf16);
}

}  // namespace plait::cuda
