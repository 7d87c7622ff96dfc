// What the tests of the Hopper kernels' primitives share.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "launch.cuh"
#include "plait/cuda_device.hpp"

namespace plait::cuda::hopper {

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
inline std::vector<Element> whole_numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> number(-4, 4);
  std::vector<Element> values;
  for (std::size_t i = 0; i < count; ++i)
    values.push_back(__float2bfloat16(static_cast<float>(number(random))));
  return values;
}

inline CUtensorMap map_of(Element const* data, int rows, int dim, int box_rows) {
  TensorArg const tensor{
      .data = data, .batch_stride = std::int64_t{rows} * dim, .row_stride = dim, .head_stride = dim};
  return tensor_map("a test's tensor", tensor, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dim, rows, 1, 1, box_rows);
}

}  // namespace plait::cuda::hopper
