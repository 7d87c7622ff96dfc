// Host side of the Hopper fold: TMA descriptors, shared memory, the launch.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "../call.hpp"
#include "config.hpp"
#include "fold.cuh"
#include "kernels.hpp"
#include "plait/rounding.hpp"

namespace plait::cuda::hopper {

/// cuTensorMapEncodeTiled, found through the runtime: the program does not link to the driver.
[[nodiscard]] inline auto encoder() {
  static auto const found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    PLAIT_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                                &result));
    if (result != cudaDriverEntryPointSuccess) throw CudaError("this driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  return found;
}

/// The map of a tensor whose boxes are `box_rows` rows of 64 elements of one head.
inline CUtensorMap tensor_map(char const* what, TensorArg const& tensor, CUtensorMapDataType type, int dim,
                              int rows, int heads, int batch, int box_rows) {
  auto const bytes = [](std::int64_t elements) { return static_cast<cuuint64_t>(elements) * 2; };
  cuuint64_t const extents[4] = {static_cast<cuuint64_t>(dim), static_cast<cuuint64_t>(std::max(rows, 1)),
                                 static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(batch)};
  cuuint64_t const strides[3] = {bytes(tensor.row_stride), bytes(tensor.head_stride),
                                 bytes(tensor.batch_stride)};
  cuuint32_t const box[4] = {chunk_dims, static_cast<cuuint32_t>(box_rows), 1, 1};
  cuuint32_t const steps[4] = {1, 1, 1, 1};
  CUtensorMap map{};
  CUresult const code = encoder()(&map, type, 4, const_cast<void*>(tensor.data), extents, strides, box, steps,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw std::invalid_argument(std::string(what) +
                                ": the hopper kernel needs data and strides that are multiples of 16 bytes; "
                                "PLAIT_CUDA_KERNEL=generic takes any");
  }
  return map;
}

/// The map of a state's O, [heads of all batch entries, state rows, value_dim] of fp32, with boxes of 64
/// rows.
inline CUtensorMap state_map(FoldArgs const& args) {
  auto const row_bytes = static_cast<cuuint64_t>(args.value_dim) * sizeof(float);
  cuuint64_t const extents[3] = {static_cast<cuuint64_t>(args.value_dim),
                                 static_cast<cuuint64_t>(args.state_rows),
                                 static_cast<cuuint64_t>(args.q_heads) * static_cast<cuuint64_t>(args.batch)};
  cuuint64_t const strides[2] = {row_bytes, row_bytes * static_cast<cuuint64_t>(args.state_rows)};
  cuuint32_t const box[3] = {state_columns, 64, 1};
  cuuint32_t const steps[3] = {1, 1, 1};
  CUtensorMap map{};
  CUresult const code = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 3, args.o, extents, strides, box,
                                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) throw CudaError("cuTensorMapEncodeTiled refuses a state");
  return map;
}

/// Whether rows go through shared memory: if there is room, and the state lies where TMA can reach it.
template <class C>
bool moves_rows(FoldArgs const& args) {
  return C::stages_rows && (!args.touches_state() || reinterpret_cast<std::uintptr_t>(args.o) % 16 == 0);
}

inline void require_aligned_output(FoldArgs const& args) {
  if (!args.finishes) return;
  bool const aligned = reinterpret_cast<std::uintptr_t>(args.out) % 16 == 0 && args.out_row_stride % 8 == 0 &&
                       args.out_head_stride % 8 == 0 && args.out_batch_stride % 8 == 0;
  if (!aligned)
    throw std::invalid_argument(
        "out: the hopper kernel needs data and strides that are multiples of 16 bytes; "
        "PLAIT_CUDA_KERNEL=generic takes any");
}

template <class C>
void launch_config(FoldArgs const& args, CUtensorMapDataType type, cudaStream_t stream) {
  require_aligned_output(args);
  int const kv_heads = args.q_heads / args.group;
  bool const moves = moves_rows<C>(args);
  TensorArg const out{.data = args.out,
                      .batch_stride = args.out_batch_stride,
                      .row_stride = args.out_row_stride,
                      .head_stride = args.out_head_stride};
  Maps maps{.q = tensor_map("q", args.q, type, args.head_dim, args.rows, args.q_heads, args.batch, 64),
            .k = tensor_map("k", args.k, type, args.head_dim, args.keys, kv_heads, args.batch, C::key_block),
            .v = tensor_map("v", args.v, type, args.value_dim, args.keys, kv_heads, args.batch, C::key_block),
            .o = moves && args.touches_state() ? state_map(args) : CUtensorMap{},
            .out = moves && args.finishes
                       ? tensor_map("out", out, type, args.value_dim, args.rows, args.q_heads, args.batch, 64)
                       : CUtensorMap{},
            .moves_rows = moves,
            .first_clusters = 0};
  constexpr int bytes = sizeof(Shared<C>);
  static_assert(bytes <= 227 * 1024);
  static int const multiprocessors = [] {
    PLAIT_CUDA(cudaFuncSetAttribute(fold_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    int device = 0;
    int count = 0;
    PLAIT_CUDA(cudaGetDevice(&device));
    PLAIT_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
  }();
  int const items = args.tile_count / args.cluster * args.batch * args.q_heads;
  maps.first_clusters = std::min(multiprocessors / args.cluster, items);
  int const turns = args.tiles_per_turn == 0 ? 1 : divided_up(items, args.tiles_per_turn);
  std::array<cudaLaunchAttribute, 2> attributes{};
  unsigned count = 0;
  if (args.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(args.cluster), 1, 1};
  }
  if (args.follows_fold) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t launch{};
  launch.gridDim = static_cast<unsigned>(std::max(maps.first_clusters, turns) * args.cluster);
  launch.blockDim = C::threads;
  launch.dynamicSmemBytes = bytes;
  launch.stream = stream;
  launch.attrs = attributes.data();
  launch.numAttrs = count;
  PLAIT_CUDA(cudaLaunchKernelEx(&launch, fold_kernel<C>, args, maps));
}

template <DType dtype, int head_dim, int value_dim, bool banded>
void launch(FoldArgs const& args, cudaStream_t stream) {
  constexpr TileShape tile = tile_shape(head_dim, value_dim, banded);
  using Element = std::conditional_t<dtype == DType::f16, __half, __nv_bfloat16>;
  using Config =
      FoldConfig<Element, head_dim, value_dim, tile.warpgroups, tile.key_block, tile.stages, tile.ping_pong>;
  launch_config<Config>(
      args, dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, stream);
}

}  // namespace plait::cuda::hopper
