#include "fold_ffma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_f32_128() {
  return ffma_fold<FfmaFold<128, 64, 64>>();
}

}  // namespace plait::cuda
