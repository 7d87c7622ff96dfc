#include "fold_mma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_bf16_64() {
  return mma_fold<MmaFold<__nv_bfloat16, 64, 64, 3>>(DType::bf16);
}

}  // namespace plait::cuda
