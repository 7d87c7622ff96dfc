#include "kernels.hpp"

#include <array>

#include "config.hpp"

namespace plait::cuda {
namespace {

template <DType dtype, int head_dim, int value_dim, bool banded>
FoldKernel entry() {
  constexpr hopper::TileShape tile = hopper::tile_shape(head_dim, value_dim, banded);
  return {.kind = CudaKernel::hopper,
          .dtype = dtype,
          .head_dim = head_dim,
          .value_dim = value_dim,
          .tile_rows = tile.rows(),
          .key_block = tile.key_block,
          .launch = &hopper::launch<dtype, head_dim, value_dim, banded>};
}

template <DType dtype, bool banded>
FoldKernel smallest(Index head_dim, Index value_dim) {
  if (head_dim <= 64 && value_dim <= 64) return entry<dtype, 64, 64, banded>();
  if (head_dim <= 128 && value_dim <= 128) return entry<dtype, 128, 128, banded>();
  if (head_dim <= 192 && value_dim <= 128) return entry<dtype, 192, 128, banded>();
  return entry<dtype, 256, 256, banded>();
}

}  // namespace

FoldKernel hopper_kernel(FoldShape const& shape, bool banded) {
  Index const head_dim = shape.head_dim;
  Index const value_dim = shape.value_dim;
  if (shape.dtype == DType::f16) {
    return banded ? smallest<DType::f16, true>(head_dim, value_dim)
                  : smallest<DType::f16, false>(head_dim, value_dim);
  }
  return banded ? smallest<DType::bf16, true>(head_dim, value_dim)
                : smallest<DType::bf16, false>(head_dim, value_dim);
}

}  // namespace plait::cuda
