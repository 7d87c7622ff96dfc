#include "../staging/copy_queue.hpp"

#include <array>

#include "call.hpp"
#include "copy.hpp"

namespace plait {
namespace {

class CudaStream {
 public:
  CudaStream() { PLAIT_CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~CudaStream() { (void)cudaStreamDestroy(stream_); }
  CudaStream(CudaStream const&) = delete;
  CudaStream& operator=(CudaStream const&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  CudaEvent() { PLAIT_CHECK_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~CudaEvent() { (void)cudaEventDestroy(event_); }
  CudaEvent(CudaEvent const&) = delete;
  CudaEvent& operator=(CudaEvent const&) = delete;

  void record(cudaStream_t stream) { PLAIT_CHECK_CUDA(cudaEventRecord(event_, stream)); }
  void make_wait(cudaStream_t stream) const { PLAIT_CHECK_CUDA(cudaStreamWaitEvent(stream, event_, 0)); }
  void synchronize() const { PLAIT_CHECK_CUDA(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

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
  void copy(Copy direction, std::vector<Region> const& pieces, std::byte* buffer) override {
    copy_pieces(direction, pieces, buffer, copies_);
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
