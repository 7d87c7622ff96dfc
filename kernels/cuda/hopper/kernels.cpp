#include "kernels.hpp"

#include <algorithm>

#include "config.hpp"
#include "plait/rounding.hpp"

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
          .shared_key_time = tile.shared_key_time,
          .launch = &hopper::launch<dtype, head_dim, value_dim, banded>};
}

// A fold's query tiles are the same with either kernel of its head dimensions (fold_plan.cpp).
static_assert(hopper::tile_shape(128, 128, true).rows() == hopper::tile_shape(128, 128, false).rows());
static_assert(hopper::tile_shape(256, 256, true).rows() == hopper::tile_shape(256, 256, false).rows());

/// Two of them have the same tiles with masks and without, and are compiled once.
template <DType dtype, bool banded>
FoldKernel smallest(Index head_dim, Index value_dim) {
  if (head_dim <= 64 && value_dim <= 64) return entry<dtype, 64, 64, true>();
  if (head_dim <= 128 && value_dim <= 128) return entry<dtype, 128, 128, banded>();
  if (head_dim <= 192 && value_dim <= 128) return entry<dtype, 192, 128, true>();
  return entry<dtype, 256, 256, banded>();
}

/// Keys that are visited, per key: the last block is rarely full.
double visited(Index keys, int key_block) {
  return static_cast<double>(rounded_up(keys, key_block)) / static_cast<double>(std::max<Index>(keys, 1));
}

template <DType dtype>
FoldKernel choose(FoldShape const& shape, bool banded) {
  FoldKernel const for_bands = smallest<dtype, true>(shape.head_dim, shape.value_dim);
  // Only the smaller blocks leave room in shared memory for a state on its way (shared.cuh).
  bool const moves_state = shape.start == Start::carried || !shape.finishes;
  if (banded || moves_state) return for_bands;
  // The larger blocks of the other kernel gain about 2%, unless the last one is mostly empty.
  constexpr double gain = 1.02;
  FoldKernel const for_all = smallest<dtype, false>(shape.head_dim, shape.value_dim);
  Index const keys = shape.kv.size();
  return visited(keys, for_all.key_block) > gain * visited(keys, for_bands.key_block) ? for_bands : for_all;
}

}  // namespace

FoldKernel hopper_kernel(FoldShape const& shape, bool banded) {
  return shape.dtype == DType::f16 ? choose<DType::f16>(shape, banded) : choose<DType::bf16>(shape, banded);
}

}  // namespace plait::cuda
