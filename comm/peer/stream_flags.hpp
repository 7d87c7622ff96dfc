// Numbers in GPU memory that streams write, and wait for, without their hosts.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

namespace plait {

/// What a stream writes to flags, and waits for at flags, in order. Calls of the driver cost: they are made
/// for several of these at once.
class StreamFlags {
 public:
  explicit StreamFlags(cudaStream_t stream) : stream_(stream) {}

  /// All that the stream was given before has been done once others see the number. The flag may be of
  /// another GPU's memory.
  void write(std::uint64_t* flag, std::uint64_t number);
  /// What the stream is given next follows: the flag, of this GPU's memory, is at least `number`.
  void await(std::uint64_t* flag, std::uint64_t number);
  /// Gives the stream all of them so far; before it is given anything else. @throws CommError
  void queue();

 private:
  struct Step {
    bool waits = false;
    std::uint64_t* flag = nullptr;
    std::uint64_t number = 0;
  };

  cudaStream_t stream_;
  std::vector<Step> steps_;
};

}  // namespace plait
