#include "fold_ffma.cuh"
#include "kernels.hpp"

namespace plait::cuda {

FoldKernel generic_f32_256() {
  return ffma_fold<FfmaFold<256, 32, 32>>();
}

}  // namespace plait::cuda
