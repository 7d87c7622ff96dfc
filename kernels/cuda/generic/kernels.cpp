#include "kernels.hpp"

#include <algorithm>

namespace plait::cuda {

FoldKernel generic_kernel(FoldShape const& shape) {
  using Make = FoldKernel (*)();
  struct Row {
    DType dtype;
    Index dim;
    Make make;
  };
  static constexpr Row table[] = {
      {DType::f32, 64, generic_f32_64},     {DType::f32, 128, generic_f32_128},
      {DType::f32, 256, generic_f32_256},   {DType::f16, 64, generic_f16_64},
      {DType::f16, 128, generic_f16_128},   {DType::f16, 256, generic_f16_256},
      {DType::bf16, 64, generic_bf16_64},   {DType::bf16, 128, generic_bf16_128},
      {DType::bf16, 256, generic_bf16_256},
  };
  Index const dim = std::max(shape.head_dim, shape.value_dim);
  for (Row const& row : table) {
    if (row.dtype == shape.dtype && dim <= row.dim) return row.make();
  }
  throw Unsupported("the generic kernels take head dimensions up to 256");
}

}  // namespace plait::cuda
