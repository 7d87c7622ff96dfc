// The Hopper kernels' primitives on the GPU, each against plain arithmetic on the host.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "launch.cuh"
#include "plait/cuda_device.hpp"

namespace plait::cuda::hopper {
namespace {

using Element = __nv_bfloat16;

/// Skips where there is no Hopper GPU, saying so.
class HopperTile : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string const reason = cuda_unavailable(); !reason.empty()) GTEST_SKIP() << "no GPU: " << reason;
    CudaDeviceInfo const info = cuda_devices().front();
    if (info.major != 9)
      GTEST_SKIP() << "needs compute capability 9.0, " << info.name << " has " << info.major;
    PLAIT_CUDA(cudaSetDevice(0));
  }
};

/// An array on the GPU that the host can read and write.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::vector<T> values) : values_(std::move(values)) {
    PLAIT_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), values_.size() * sizeof(T)));
    PLAIT_CUDA(cudaMemcpy(data_, values_.data(), values_.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { (void)cudaFree(data_); }
  DeviceArray(DeviceArray const&) = delete;
  DeviceArray& operator=(DeviceArray const&) = delete;

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::vector<T> fetch() {
    PLAIT_CUDA(cudaMemcpy(values_.data(), data_, values_.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values_;
  }
  [[nodiscard]] std::vector<T> const& sent() const { return values_; }

 private:
  std::vector<T> values_;
  T* data_ = nullptr;
};

/// Small whole numbers: products and sums of them are exact in fp32, so results are compared exactly.
std::vector<Element> whole_numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> number(-4, 4);
  std::vector<Element> values;
  for (std::size_t i = 0; i < count; ++i)
    values.push_back(__float2bfloat16(static_cast<float>(number(random))));
  return values;
}

CUtensorMap map_of(Element const* data, int rows, int dim, int box_rows) {
  TensorArg const tensor{
      .data = data, .batch_stride = std::int64_t{rows} * dim, .row_stride = dim, .head_stride = dim};
  return tensor_map("a test's tensor", tensor, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dim, rows, 1, 1, box_rows);
}

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

TEST_F(HopperTile, RowsBeyondATensorAreZero) {
  check_products<64>(50, 0);
  check_products<128>(90, 70);
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
