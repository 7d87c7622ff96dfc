// The Hopper kernels' primitives on the GPU, each against plain arithmetic on the host.
#include "hopper_tile.cuh"

namespace plait::cuda::hopper {
namespace {

constexpr int warps_released = 5;

constexpr int keys = 80;

template <int Dim>
struct alignas(1024) Tiles {
  Element a[Dim / chunk_dims][64][chunk_dims];
  Element b[Dim / chunk_dims][keys][chunk_dims];
  Barrier full;
};

/// Both tiles by TMA, from row `row` on; all threads wait for them.
template <int Dim>
__device__ Tiles<Dim>& load_tiles(CUtensorMap const& a, CUtensorMap const& b, int row) {
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& tiles = *reinterpret_cast<Tiles<Dim>*>(memory);
  if (threadIdx.x == 0) {
    barrier_init(tiles.full, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    tma_prefetch(&a, 0, row, 0, 0);  // may only be faster
    barrier_expect(tiles.full, sizeof tiles.a + sizeof tiles.b);
    for (int chunk = 0; chunk < Dim / chunk_dims; ++chunk) {
      tma_load(&a, tiles.a[chunk], chunk * chunk_dims, row, 0, 0, tiles.full);
      tma_load(&b, tiles.b[chunk], chunk * chunk_dims, row, 0, 0, tiles.full);
    }
  }
  __syncthreads();
  barrier_wait(tiles.full, 0);
  return tiles;
}

template <int Columns>
__device__ void store_accumulators(float const (&d)[Columns / 2], float* out) {
  int const row = static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  for (int e = 0; e < Columns / 2; ++e) {
    int const column = e / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2;
    out[(row + e / 2 % 2 * 8) * Columns + column] = d[e];
  }
}

/// s = a·bᵀ, and o = round(s)·b with s as the operand in registers.
template <int Dim>
__global__ void __launch_bounds__(warpgroup_threads)
    products(__grid_constant__ CUtensorMap const a, __grid_constant__ CUtensorMap const b, int row,
             float* s_out, float* o_out) {
  Tiles<Dim>& tiles = load_tiles<Dim>(a, b, row);
  float s[keys / 2];
  wgmma_fence();
  multiply_transposed<Element, keys, Dim, 64>(s, descriptor(tiles.a, 0), descriptor(tiles.b, 0));
  wgmma_commit();
  wgmma_wait<0>();
  pin(s);
  store_accumulators<keys>(s, s_out);
  std::uint32_t p[keys / 4];
  for (int e = 0; e < keys / 4; ++e) p[e] = pack<Element>(s[2 * e] * 0x1p-6f, s[2 * e + 1] * 0x1p-6f);
  float o[Dim / 2] = {};
  pin(p);
  pin(o);
  wgmma_fence();
  multiply_add<Element, Dim, keys>(o, p, descriptor(tiles.b, sizeof tiles.b[0]));
  wgmma_commit();
  wgmma_wait<0>();
  pin(o);
  store_accumulators<Dim>(o, o_out);
}

template <int Dim>
void check_products(int rows, int first_row) {
  DeviceArray<Element> a(whole_numbers(static_cast<std::size_t>(rows) * Dim, 1));
  DeviceArray<Element> b(whole_numbers(static_cast<std::size_t>(rows) * Dim, 2));
  DeviceArray<float> s(std::vector<float>(64 * keys));
  DeviceArray<float> o(std::vector<float>(64 * Dim));
  PLAIT_CUDA(
      cudaFuncSetAttribute(products<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Tiles<Dim>)));
  products<Dim><<<1, warpgroup_threads, sizeof(Tiles<Dim>)>>>(
      map_of(a.data(), rows, Dim, 64), map_of(b.data(), rows, Dim, keys), first_row, s.data(), o.data());
  PLAIT_CUDA(cudaGetLastError());
  PLAIT_CUDA(cudaDeviceSynchronize());
  auto const element = [&](DeviceArray<Element> const& tensor, int row, int column) {
    int const at = first_row + row;  // beyond the tensor TMA fills in zeros
    return at < rows ? __bfloat162float(tensor.sent()[static_cast<std::size_t>(at) * Dim + column]) : 0.0f;
  };
  std::vector<float> const s_found = s.fetch();
  std::vector<float> const o_found = o.fetch();
  for (int i = 0; i < 64; ++i) {
    std::vector<float> p(keys);
    for (int j = 0; j < keys; ++j) {
      float sum = 0.0f;
      for (int d = 0; d < Dim; ++d) sum += element(a, i, d) * element(b, j, d);
      ASSERT_EQ(s_found[static_cast<std::size_t>(i) * keys + j], sum) << "row " << i << ", key " << j;
      p[static_cast<std::size_t>(j)] = bf16_to_float(float_to_bf16(sum * 0x1p-6f));
    }
    for (int d = 0; d < Dim; ++d) {
      float sum = 0.0f;
      for (int j = 0; j < keys; ++j) sum += p[static_cast<std::size_t>(j)] * element(b, j, d);
      ASSERT_EQ(o_found[static_cast<std::size_t>(i) * Dim + d], sum) << "row " << i << ", column " << d;
    }
  }
}

TEST_F(HopperTile, ProductsOfSwizzledTilesAndOfRegisters) {
  check_products<64>(200, 0);
  check_products<128>(200, 37);
  check_products<256>(200, 8);
}

/// The products of a block's first 64 of 80 keys: s = a·bᵀ, and o = p·b with p = 1 + key / 16 as operand.
__global__ void __launch_bounds__(warpgroup_threads)
    first_products(__grid_constant__ CUtensorMap const a, __grid_constant__ CUtensorMap const b, float* s_out,
                   float* o_out) {
  constexpr int first = 64;
  Tiles<128>& tiles = load_tiles<128>(a, b, 0);
  float s[first / 2];
  std::uint32_t p[keys / 4];
  for (int e = 0; e < keys / 4; ++e) {
    float const weight = static_cast<float>(1 + e / 4);
    p[e] = pack<Element>(weight, weight);
  }
  float o[128 / 2] = {};
  pin(p);
  pin(o);
  wgmma_fence();
  multiply_transposed<Element, first, 128, 64, keys>(s, here(descriptor(tiles.a, 0)), descriptor(tiles.b, 0));
  multiply_add<Element, 128, first>(o, p, descriptor(tiles.b, sizeof tiles.b[0]));
  wgmma_commit();
  wgmma_wait<0>();
  pin(s);
  pin(o);
  store_accumulators<first>(s, s_out);
  store_accumulators<128>(o, o_out);
}

TEST_F(HopperTile, ProductsOfATilesFirstRows) {
  constexpr int first = 64;
  constexpr int dim = 128;
  DeviceArray<Element> a(whole_numbers(64 * dim, 3));
  DeviceArray<Element> b(whole_numbers(keys * dim, 4));
  DeviceArray<float> s(std::vector<float>(64 * first));
  DeviceArray<float> o(std::vector<float>(64 * dim));
  PLAIT_CUDA(
      cudaFuncSetAttribute(first_products, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Tiles<dim>)));
  first_products<<<1, warpgroup_threads, sizeof(Tiles<dim>)>>>(
      map_of(a.data(), 64, dim, 64), map_of(b.data(), keys, dim, keys), s.data(), o.data());
  PLAIT_CUDA(cudaGetLastError());
  PLAIT_CUDA(cudaDeviceSynchronize());
  auto const element = [](DeviceArray<Element> const& tensor, int row, int column) {
    return __bfloat162float(tensor.sent()[static_cast<std::size_t>(row) * dim + column]);
  };
  std::vector<float> const s_found = s.fetch();
  std::vector<float> const o_found = o.fetch();
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < first; ++j) {
      float sum = 0.0f;
      for (int d = 0; d < dim; ++d) sum += element(a, i, d) * element(b, j, d);
      ASSERT_EQ(s_found[static_cast<std::size_t>(i) * first + j], sum) << "row " << i << ", key " << j;
    }
    for (int d = 0; d < dim; ++d) {
      float sum = 0.0f;
      for (int j = 0; j < first; ++j) sum += static_cast<float>(1 + j / 16) * element(b, j, d);
      ASSERT_EQ(o_found[static_cast<std::size_t>(i) * dim + d], sum) << "row " << i << ", column " << d;
    }
  }
}

TEST_F(HopperTile, RowsBeyondATensorAreZero) {
  check_products<64>(50, 0);
  check_products<128>(90, 70);
}

/// Two boxes of 32 columns come, every element of them gets a thousand times its row added, and they go.
__global__ void __launch_bounds__(warpgroup_threads)
    move_boxes(__grid_constant__ CUtensorMap const from, __grid_constant__ CUtensorMap const to, int row,
               int plane) {
  __shared__ alignas(1024) float boxes[2][64][state_columns];
  __shared__ Barrier full;
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    barrier_expect(full, sizeof boxes);
    for (int box = 0; box < 2; ++box) tma_load(&from, boxes[box], box * state_columns, row, plane, full);
  }
  __syncthreads();
  barrier_wait(full, 0);
  for (unsigned at = threadIdx.x; at < 2 * 64 * 8; at += warpgroup_threads) {
    auto* const units = reinterpret_cast<float4*>(&boxes[at / 512][0][0]);
    float4& unit = units[swizzled_unit(at % 512 / 8, at % 8)];
    float const more = 1000.0f * static_cast<float>(at % 512 / 8);
    unit = {unit.x + more, unit.y + more, unit.z + more, unit.w + more};
  }
  ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int box = 0; box < 2; ++box) tma_store(&to, boxes[box], box * state_columns, row, plane);
  tma_store_read();
  tma_store_wait();
}

TEST_F(HopperTile, BoxesOfAStateComeAndGoSwizzledAndClipped) {
  constexpr int planes = 3;
  constexpr int rows = 90;
  constexpr int dim = 40;  // the second box ends beyond it
  constexpr int row = 37;  // and both of them end beyond the rows
  std::vector<float> values(std::size_t{planes} * rows * dim);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 997);
  DeviceArray<float> from(values);
  DeviceArray<float> to(std::vector<float>(values.size(), -1.0f));
  FoldArgs args{};
  args.value_dim = dim;
  args.state_rows = rows;
  args.q_heads = planes;
  args.batch = 1;
  args.o = from.data();
  CUtensorMap const from_map = state_map(args);
  args.o = to.data();
  move_boxes<<<1, warpgroup_threads>>>(from_map, state_map(args), row, 1);
  PLAIT_CUDA(cudaGetLastError());
  std::vector<float> const found = to.fetch();
  for (int plane = 0; plane < planes; ++plane) {
    for (int r = 0; r < rows; ++r) {
      for (int d = 0; d < dim; ++d) {
        std::size_t const at = (static_cast<std::size_t>(plane) * rows + static_cast<std::size_t>(r)) * dim +
                               static_cast<std::size_t>(d);
        bool const moved = plane == 1 && r >= row;
        ASSERT_EQ(found[at], moved ? values[at] + 1000.0f * static_cast<float>(r - row) : -1.0f)
            << plane << ", " << r << ", " << d;
      }
    }
  }
}

/// A warp's 16 rows of 64 columns, held as accumulators are, stored as matrices and sent out.
__global__ void store_tile(__grid_constant__ CUtensorMap const to, int row, int head) {
  __shared__ alignas(1024) Element box[64][chunk_dims];
  unsigned const warp = threadIdx.x / 32;
  unsigned const lane = threadIdx.x % 32;
  auto const pair = [&](unsigned r, unsigned column) {
    return pack<Element>(static_cast<float>(r), static_cast<float>(column));
  };
  unsigned const upper = warp * 16 + lane / 4;
  for (unsigned j = 0; j < 8; j += 2) {
    std::uint32_t const words[4] = {pair(upper, 8 * j), pair(upper + 8, 8 * j), pair(upper, 8 * j + 8),
                                    pair(upper + 8, 8 * j + 8)};
    auto* const units = reinterpret_cast<uint4*>(&box[0][0]);
    store_matrices(units + swizzled_unit(warp * 16 + lane % 16, j + lane / 16), words);
  }
  ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
  __syncthreads();
  if (threadIdx.x != 0) return;
  tma_store(&to, box, 0, row, head, 0);
  tma_store_read();
  tma_store_wait();
}

TEST_F(HopperTile, MatricesLieWhereTmaLooksForThem) {
  constexpr int rows = 70;
  constexpr int heads = 2;
  constexpr int row = 20;
  DeviceArray<Element> out(
      std::vector<Element>(std::size_t{rows} * heads * chunk_dims, __float2bfloat16(-1)));
  TensorArg const tensor{.data = out.data(),
                         .batch_stride = rows * heads * chunk_dims,
                         .row_stride = heads * chunk_dims,
                         .head_stride = chunk_dims};
  store_tile<<<1, warpgroup_threads>>>(
      tensor_map("out", tensor, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, chunk_dims, rows, heads, 1, 64), row, 1);
  PLAIT_CUDA(cudaGetLastError());
  std::vector<Element> const found = out.fetch();
  for (int r = 0; r < rows; ++r) {
    for (int head = 0; head < heads; ++head) {
      for (int column = 0; column < chunk_dims; ++column) {
        std::size_t const at = static_cast<std::size_t>((r * heads + head) * chunk_dims + column);
        // A pair of columns holds its row and the first column of its matrix.
        float const sent = static_cast<float>(column % 2 == 0 ? r - row : column / 8 * 8);
        ASSERT_EQ(__bfloat162float(found[at]), head == 1 && r >= row ? sent : -1.0f)
            << r << ", " << head << ", " << column;
      }
    }
  }
}

__global__ void copy_bulk(uint4 const* from, uint4* to) {
  __shared__ alignas(16) uint4 there[32];
  __shared__ Barrier full;
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    barrier_expect(full, sizeof there);
    bulk_load(from, there, sizeof there, full);
  }
  __syncwarp();
  barrier_wait(full, 0);
  to[threadIdx.x] = there[threadIdx.x ^ 1];
}

TEST_F(HopperTile, BulkCopiesArriveOnceWaitedFor) {
  std::vector<uint4> values;
  for (unsigned i = 0; i < 32; ++i) values.push_back({i, 100 + i, 200 + i, 300 + i});
  DeviceArray<uint4> from(values);
  DeviceArray<uint4> to(std::vector<uint4>(32));
  copy_bulk<<<1, 32>>>(from.data(), to.data());
  PLAIT_CUDA(cudaGetLastError());
  std::vector<uint4> const found = to.fetch();
  for (unsigned i = 0; i < 32; ++i) {
    EXPECT_EQ(found[i].x, i ^ 1);
    EXPECT_EQ(found[i].w, 300 + (i ^ 1));
  }
}

__global__ void columns_seen(int begin, int end, std::uint32_t* bits) {
  *bits = seen_columns(begin, end);
}

TEST_F(HopperTile, SeenColumnsAreThoseOfTheWindow) {
  DeviceArray<std::uint32_t> bits({0});
  for (int begin = -20; begin < 140; begin += 3) {
    for (int end = begin - 5; end < 150; end += 7) {
      columns_seen<<<1, 1>>>(begin, end, bits.data());
      std::uint32_t const found = bits.fetch().front();
      for (int bit = 0; bit < 32; ++bit) {
        int const column = bit / 2 * 8 + bit % 2;
        ASSERT_EQ((found >> bit & 1u) != 0, begin <= column && column < end)
            << begin << ", " << end << ", " << column;
      }
    }
  }
}

/// Two warpgroups take turns through named barriers, with registers moved between them: the order is kept.
__global__ void __launch_bounds__(2 * warpgroup_threads, 1) take_turns(int turns, int* order) {
  int const warpgroup = static_cast<int>(threadIdx.x) / warpgroup_threads;
  if (warpgroup == 0) {
    give_registers<40>();
    for (int turn = 0; turn < turns; ++turn) {
      if (threadIdx.x == 0) order[2 * turn] = 2 * turn;
      named_arrive(1, 2 * warpgroup_threads);
      named_sync(2, 2 * warpgroup_threads);
    }
  } else {
    take_registers<200>();
    for (int turn = 0; turn < turns; ++turn) {
      named_sync(1, 2 * warpgroup_threads);
      if (threadIdx.x == warpgroup_threads) order[2 * turn + 1] = order[2 * turn] + 1;
      named_arrive(2, 2 * warpgroup_threads);
    }
  }
}

TEST_F(HopperTile, NamedBarriersKeepTheOrderOfTurns) {
  constexpr int turns = 1000;
  DeviceArray<int> order(std::vector<int>(2 * turns, -1));
  take_turns<<<1, 2 * warpgroup_threads>>>(turns, order.data());
  PLAIT_CUDA(cudaGetLastError());
  std::vector<int> const found = order.fetch();
  for (int i = 0; i < 2 * turns; ++i) ASSERT_EQ(found[static_cast<std::size_t>(i)], i);
}

/// Each of the first warps writes its number and releases once; the last warp waits for all of them.
__global__ void release_warps(int* seen) {
  __shared__ Barrier done;
  __shared__ int numbers[warps_released * 32];
  if (threadIdx.x == 0) {
    barrier_init(done, warps_released * release_arrivals);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < warps_released * 32) {
    __nanosleep(threadIdx.x / 32 * 2000);
    numbers[threadIdx.x] = static_cast<int>(threadIdx.x) + 1;
    release(done);
  } else {
    barrier_wait(done, 0);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < warps_released * 32; i += 32) seen[i] = numbers[i];
  }
}

TEST_F(HopperTile, ReleaseArrivesOncePerWarpAfterItsWrites) {
  DeviceArray<int> seen(std::vector<int>(std::size_t{warps_released} * 32, 0));
  release_warps<<<1, (warps_released + 1) * 32>>>(seen.data());
  PLAIT_CUDA(cudaGetLastError());
  std::vector<int> const found = seen.fetch();
  for (int i = 0; i < warps_released * 32; ++i) EXPECT_EQ(found[static_cast<std::size_t>(i)], i + 1);
}

__global__ void exponentials(float const* x, float* y, int count) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) y[i] = fast_exp2(x[i]);
}

TEST_F(HopperTile, FastExponentialIsWithinTwoUnits) {
  std::vector<float> x;
  for (float value = -125.0f; value < 12.0f; value += 0.01f) x.push_back(value);
  x.push_back(-std::numeric_limits<float>::infinity());
  DeviceArray<float> in(x);
  DeviceArray<float> out(std::vector<float>(x.size(), -1.0f));
  int const count = static_cast<int>(x.size());
  exponentials<<<static_cast<unsigned>(count / 256 + 1), 256>>>(in.data(), out.data(), count);
  PLAIT_CUDA(cudaGetLastError());
  std::vector<float> const y = out.fetch();
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    double const right = std::exp2(static_cast<double>(x[i]));
    ASSERT_NEAR(y[i] / right, 1.0, 3e-7) << x[i];
  }
  EXPECT_EQ(y.back(), 0.0f);
}

}  // namespace
}  // namespace plait::cuda::hopper
