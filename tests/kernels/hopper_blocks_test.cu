// Blocks that work together, in a cluster or in launches that overlap, on the GPU.
#include "hopper_tile.cuh"

namespace plait::cuda::hopper {
namespace {

struct alignas(1024) SharedByTwo {
  Element tile[2][64][chunk_dims];
  Barrier full, empty, sent;
  std::int32_t value;
};

/// Each block of a cluster loads one chunk for both; the first sends the second a number; all warps of both
/// release what they read. @param out  each block's tile as it lies in its shared memory
__global__ void share_in_cluster(__grid_constant__ CUtensorMap const map, Element* out, int* got) {
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<SharedByTwo*>(memory);
  int const warps = static_cast<int>(blockDim.x) / 32;
  auto const rank = static_cast<int>(cluster_rank());
  if (threadIdx.x == 0) {
    barrier_init(shared.full, 1);
    barrier_init(shared.empty, 2 * warps * release_arrivals);
    barrier_init(shared.sent, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    barrier_expect(shared.full, sizeof shared.tile);
    tma_load_both(&map, shared.tile[rank], rank * chunk_dims, 0, 0, 0, shared.full);
    if (rank == 0) {
      send_to_peer(shared.value, 4711, shared.sent);
    } else {
      barrier_expect(shared.sent, sizeof shared.value);
      barrier_wait(shared.sent, 0);
      *got = shared.value;
    }
  }
  __syncwarp();
  barrier_wait(shared.full, 0);
  constexpr int elements = 2 * 64 * chunk_dims;
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += static_cast<int>(blockDim.x)) {
    out[blockIdx.x * elements + static_cast<unsigned>(i)] = shared.tile[0][0][i];
  }
  release(shared.empty, true);
  barrier_wait(shared.empty, 0);  // ends only if each warp of both blocks has arrived here
  cluster_sync();
}

TEST_F(HopperTile, BlocksOfAClusterLoadForEachOtherAndReleaseTogether) {
  constexpr int dim = 2 * chunk_dims;
  DeviceArray<Element> from(whole_numbers(64 * dim, 9));
  DeviceArray<Element> to(std::vector<Element>(std::size_t{2} * 64 * dim));
  DeviceArray<int> got(std::vector<int>(1, 0));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {2, 1, 1};
  cudaLaunchConfig_t launch{};
  launch.gridDim = 2;
  launch.blockDim = 96;
  launch.dynamicSmemBytes = sizeof(SharedByTwo);
  launch.attrs = &cluster;
  launch.numAttrs = 1;
  PLAIT_CUDA(
      cudaLaunchKernelEx(&launch, share_in_cluster, map_of(from.data(), 64, dim, 64), to.data(), got.data()));
  EXPECT_EQ(got.fetch().front(), 4711);
  std::vector<Element> const found = to.fetch();
  for (unsigned i = 0; i < 2 * 64 * dim; ++i) {
    unsigned const row = i % (64 * dim) / dim;
    unsigned const column = i % dim;
    unsigned const unit = swizzled_unit(row, column % chunk_dims / 8);
    std::size_t const at =
        (i / (64 * dim) * 2 + column / chunk_dims) * 64 * chunk_dims + unit * 8 + column % 8;
    ASSERT_EQ(static_cast<float>(found[at]), static_cast<float>(from.sent()[row * dim + column])) << i;
  }
}

/// What a launch reads after the earlier one has ended is what that one wrote, however early it began.
__global__ void append_digit(int digit, int* number) {
  await_earlier_launch();
  allow_next_launch();
  int const before = number[blockIdx.x];
  __nanosleep(blockIdx.x * 3000);  // blocks end at different times
  if (threadIdx.x == 0) number[blockIdx.x] = before * 3 + digit;
}

TEST_F(HopperTile, LaunchesThatOverlapSeeWhatEarlierOnesWrote) {
  constexpr unsigned blocks = 16;
  DeviceArray<int> numbers(std::vector<int>(blocks, 1));
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = blocks;
  launch.blockDim = 32;
  launch.attrs = &overlap;
  launch.numAttrs = 1;
  int expected = 1;
  for (int i = 0; i < 15; ++i) {
    PLAIT_CUDA(cudaLaunchKernelEx(&launch, append_digit, i % 3, numbers.data()));
    expected = expected * 3 + i % 3;
  }
  PLAIT_CUDA(cudaDeviceSynchronize());
  for (int const number : numbers.fetch()) EXPECT_EQ(number, expected);
}

}  // namespace
}  // namespace plait::cuda::hopper
