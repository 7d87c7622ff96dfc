#include "../staging/copy_queue.hpp"

#include <array>

#include "call.hpp"
#include "copy.hpp"
#include "stream.hpp"

namespace plait {
namespace {

class CudaCopies : public CopyQueue {
 public:
  explicit CudaCopies(cudaStream_t work) : work_(work) {}

  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    void* data = nullptr;
    PLAIT_CHECK_CUDA(cudaMallocHost(&data, bytes));
    return {static_cast<std::byte*>(data), [](std::byte* pinned) { (void)cudaFreeHost(pinned); }};
  }
  void follow_work() override {
    worked_.record(work_);
    worked_.make_wait(copies_);
  }
  void lead_work() override {
    copied_.record(copies_);
    copied_.make_wait(work_);
  }
  void copy(Copy direction, std::vector<StridedRegion> const& pieces, std::byte* buffer) override {
    copy_stream(direction, pieces, buffer, copies_);
  }
  void set(std::size_t mark) override { marks_.at(mark).record(copies_); }
  void await(std::size_t mark) override { marks_.at(mark).synchronize(); }
  void await_all() override { PLAIT_CHECK_CUDA(cudaStreamSynchronize(copies_)); }

 private:
  cudaStream_t work_;
  CudaStream copies_;
  CudaEvent worked_;
  CudaEvent copied_;
  std::array<CudaEvent, 2> marks_;
};

}  // namespace

std::unique_ptr<CopyQueue> make_cuda_copies(void* stream) {
  return std::make_unique<CudaCopies>(static_cast<cudaStream_t>(stream));
}

}  // namespace plait
