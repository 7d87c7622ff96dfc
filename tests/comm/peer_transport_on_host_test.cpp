// The tests of peer_transport_test.cpp where there is no GPU: the part of CUDA that they need, with host
// threads for streams and shared memory for device memory. It keeps to what CUDA promises and no more: a
// stream's work is late by chance, a wait for an event is for what was recorded before it was queued, small
// allocations share a page, and a page that this process maps already cannot be mapped again.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

/// Memory of a name, which other processes may map.
class SharedMemory {
 public:
  static std::shared_ptr<SharedMemory> create(std::size_t bytes) {
    static std::atomic<int> count = 0;
    std::string const name = "/plait-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
    int const file = ::shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (file < 0 || ::ftruncate(file, static_cast<off_t>(bytes)) != 0) return nullptr;
    return std::shared_ptr<SharedMemory>(new SharedMemory(name, file, bytes, true));
  }
  static std::shared_ptr<SharedMemory> open(std::string const& name) {
    int const file = ::shm_open(name.c_str(), O_RDWR, 0600);
    if (file < 0) return nullptr;
    return std::shared_ptr<SharedMemory>(
        new SharedMemory(name, file, static_cast<std::size_t>(::lseek(file, 0, SEEK_END)), false));
  }
  ~SharedMemory() {
    ::munmap(data_, bytes_);
    if (owned_) ::shm_unlink(name_.c_str());
  }
  SharedMemory(SharedMemory const&) = delete;
  SharedMemory& operator=(SharedMemory const&) = delete;

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::string const& name() const { return name_; }

 private:
  SharedMemory(std::string name, int file, std::size_t bytes, bool owned)
      : name_(std::move(name)),
        data_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)),
        bytes_(bytes),
        owned_(owned) {
    ::close(file);
  }

  std::string name_;
  void* data_;
  std::size_t bytes_;
  bool owned_;
};

/// How often an event was recorded, by calls and by streams.
struct EventState {
  std::atomic<std::uint64_t> asked = 0;
  std::atomic<std::uint64_t> done = 0;
  std::atomic<std::int64_t> nanoseconds = 0;  ///< when it was done last
};

struct Event {
  std::shared_ptr<EventState> state;
};

/// A thread that does what it is given, in order, each after a while.
class Stream {
 public:
  Stream() : thread_([this] { work(); }) {}
  ~Stream() {
    push(nullptr);
    thread_.join();
  }
  Stream(Stream const&) = delete;
  Stream& operator=(Stream const&) = delete;

  void push(std::function<void()> job) {
    std::lock_guard const lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }
  void drain() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return jobs_.empty(); });
  }

 private:
  void work() {
    std::mt19937 random(static_cast<unsigned>(::getpid()));
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !jobs_.empty(); });
      auto const job = jobs_.front();
      lock.unlock();
      if (job == nullptr) return;
      if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      job();
      lock.lock();
      jobs_.pop_front();
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::thread thread_;
};

/// The memory and the streams of this process.
class Gpu {
 public:
  static Gpu& instance() {
    static Gpu gpu;
    return gpu;
  }

  std::byte* allocate(std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    Allocation made{.memory = nullptr, .bytes = bytes, .id = ++ids_};
    std::byte* data = nullptr;
    if (bytes >= page_bytes) {
      made.memory = SharedMemory::create(bytes);
      data = made.memory->data();
    } else {
      if (!page_ || page_used_ + bytes > page_bytes) {
        page_ = SharedMemory::create(page_bytes);
        page_used_ = 0;
      }
      made.memory = page_;
      data = page_->data() + page_used_;
      page_used_ += (bytes + 255) / 256 * 256;
    }
    allocations_[data] = made;
    return data;
  }
  bool free(std::byte* data) {
    drain();
    std::lock_guard const lock(mutex_);
    return allocations_.erase(data) == 1;
  }

  struct Allocation {
    std::shared_ptr<SharedMemory> memory;
    std::size_t bytes = 0;
    unsigned long long id = 0;
  };
  /// The one that an address lies in, and where it begins.
  std::pair<std::byte*, Allocation> find(std::byte* data) {
    std::lock_guard const lock(mutex_);
    auto after = allocations_.upper_bound(data);
    if (after == allocations_.begin()) return {};
    auto const& [begin, allocation] = *--after;
    if (data >= begin + std::max<std::size_t>(1, allocation.bytes)) return {};
    return {begin, allocation};
  }

  cudaError_t map(std::string const& name, void** data) {
    std::lock_guard const lock(mutex_);
    for (auto const& [begin, allocation] : allocations_) {
      if (allocation.memory->name() == name) return cudaErrorDeviceUninitialized;  // its own
    }
    for (auto const& [begin, memory] : mapped_) {
      if (memory->name() == name) return cudaErrorAlreadyMapped;
    }
    auto memory = SharedMemory::open(name);
    if (!memory) return cudaErrorInvalidValue;
    *data = memory->data();
    mapped_[memory->data()] = std::move(memory);
    return cudaSuccess;
  }
  cudaError_t unmap(void* data) {
    std::lock_guard const lock(mutex_);
    return mapped_.erase(static_cast<std::byte*>(data)) == 1 ? cudaSuccess : cudaErrorInvalidValue;
  }

  Stream* add_stream() {
    std::lock_guard const lock(mutex_);
    auto* const stream = new Stream;
    streams_.insert(stream);
    return stream;
  }
  void remove(Stream* stream) {
    {
      std::lock_guard const lock(mutex_);
      streams_.erase(stream);
    }
    delete stream;
  }
  void drain() {
    std::set<Stream*> streams;
    {
      std::lock_guard const lock(mutex_);
      streams = streams_;
    }
    for (Stream* stream : streams) stream->drain();
  }

 private:
  static constexpr std::size_t page_bytes = std::size_t{2} << 20;
  std::mutex mutex_;
  std::map<std::byte*, Allocation> allocations_;
  std::map<std::byte*, std::shared_ptr<SharedMemory>> mapped_;
  std::shared_ptr<SharedMemory> page_;
  std::size_t page_used_ = 0;
  unsigned long long ids_ = 0;
  std::set<Stream*> streams_;
};

Stream& stream_of(cudaStream_t stream) {
  return *reinterpret_cast<Stream*>(stream);
}
Event& event_of(cudaEvent_t event) {
  return *reinterpret_cast<Event*>(event);
}

void await(EventState const& event, std::uint64_t count) {
  while (event.done.load() < count) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

CUresult attributes(unsigned count, CUpointer_attribute* asked, void** answers, CUdeviceptr address) {
  auto const [begin, allocation] = Gpu::instance().find(reinterpret_cast<std::byte*>(address));
  for (unsigned i = 0; i < count; ++i) {
    switch (asked[i]) {
      case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *static_cast<CUdeviceptr*>(answers[i]) = reinterpret_cast<CUdeviceptr>(begin);
        break;
      case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *static_cast<std::size_t*>(answers[i]) = allocation.bytes;
        break;
      case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *static_cast<unsigned long long*>(answers[i]) = allocation.id;
        break;
      case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        *static_cast<int*>(answers[i]) = 1;
        break;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

/// Numbers that streams write, and wait for.
CUresult batch(CUstream stream, unsigned count, CUstreamBatchMemOpParams* operations, unsigned) {
  for (unsigned i = 0; i < count; ++i) {
    bool const waits = operations[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
    auto* const number = reinterpret_cast<std::int64_t*>(operations[i].waitValue.address);
    auto const value = static_cast<std::int64_t>(operations[i].waitValue.value64);
    stream_of(stream).push([=] {
      std::atomic_ref<std::int64_t> const shared(*number);
      if (!waits) return shared.store(value);
      while (shared.load() - value < 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
    });
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

char const* cudaGetErrorString(cudaError_t) {
  return "an error of the CUDA of this test";
}
char const* cudaGetErrorName(cudaError_t code) {
  static thread_local std::string name;
  name = "error " + std::to_string(code);
  return name.c_str();
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  Gpu::instance().drain();
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(char const* symbol, void** function, unsigned,
                                             unsigned long long, cudaDriverEntryPointQueryResult* result) {
  *function = nullptr;
  if (std::strcmp(symbol, "cuPointerGetAttributes") == 0) *function = reinterpret_cast<void*>(&attributes);
  if (std::strcmp(symbol, "cuStreamBatchMemOp") == 0) *function = reinterpret_cast<void*>(&batch);
  *result = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  *data = Gpu::instance().allocate(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  return Gpu::instance().free(static_cast<std::byte*>(data)) ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMemcpy(void* into, void const* from, std::size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(into, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* into, void const* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  stream_of(stream).push([=] { std::memcpy(into, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* into, std::size_t into_pitch, void const* from, std::size_t from_pitch,
                              std::size_t width, std::size_t rows, cudaMemcpyKind, cudaStream_t stream) {
  if (into_pitch < width || from_pitch < width || into_pitch >= 1u << 31 || from_pitch >= 1u << 31) {
    return cudaErrorInvalidPitchValue;
  }
  stream_of(stream).push([=] {
    for (std::size_t row = 0; row < rows; ++row) {
      std::memcpy(static_cast<std::byte*>(into) + row * into_pitch,
                  static_cast<std::byte const*>(from) + row * from_pitch, width);
    }
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  stream_of(stream).push([=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(Gpu::instance().add_stream());
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Gpu::instance().remove(&stream_of(stream));
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  stream_of(stream).drain();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream_of(stream).push(
      [state = event_of(event).state, count = event_of(event).state->asked.load()] { await(*state, count); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  auto made = std::make_unique<Event>();
  made->state = std::make_shared<EventState>();
  *event = reinterpret_cast<cudaEvent_t>(made.release());
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &event_of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  auto const state = event_of(event).state;
  stream_of(stream).push([state, count = ++state->asked] {
    state->nanoseconds = Clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
    state->done = count;
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  EventState const& state = *event_of(event).state;
  return state.done.load() >= state.asked.load() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  auto const span = event_of(end).state->nanoseconds.load() - event_of(begin).state->nanoseconds.load();
  *milliseconds = static_cast<float>(span) * 1e-6f;
  return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* data) {
  auto const [begin, allocation] = Gpu::instance().find(static_cast<std::byte*>(data));
  if (begin == nullptr) return cudaErrorInvalidValue;
  std::snprintf(handle->reserved, sizeof handle->reserved, "%s", allocation.memory->name().c_str());
  return cudaSuccess;
}
cudaError_t cudaIpcOpenMemHandle(void** data, cudaIpcMemHandle_t handle, unsigned) {
  return Gpu::instance().map(handle.reserved, data);
}
cudaError_t cudaIpcCloseMemHandle(void* data) {
  return Gpu::instance().unmap(data);
}

}  // extern "C"
