// The choice among fold kernels, and how each one is launched. This table is the one place that decides.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "fold_args.hpp"
#include "plait/cuda_device.hpp"

namespace plait::cuda {

/// One compiled fold kernel.
struct FoldKernel {
  CudaKernel kind = CudaKernel::generic;
  DType dtype = DType::bf16;
  int head_dim = 0;  ///< as compiled: smaller heads are filled up with zeros
  int value_dim = 0;
  int tile_rows = 0;
  int key_block = 0;
  /// What a key block takes if two tiles of a cluster load it together, of what it takes if each loads it by
  /// itself; 1 if they can't.
  double shared_key_time = 1.0;
  /// Enqueues a fold on `stream`. @throws CudaError
  void (*launch)(FoldArgs const& args, cudaStream_t stream) = nullptr;

  [[nodiscard]] std::string describe() const;  ///< "hopper bf16 D128, tiles 128×128"
};

/// The kernel for a fold. `banded`: some rows see only part of their blocks' keys.
/// @throws Unsupported, saying what would work
[[nodiscard]] FoldKernel choose_fold_kernel(CudaDeviceInfo const& device, FoldShape const& shape, bool banded,
                                            std::optional<CudaKernel> forced);

}  // namespace plait::cuda
