// One rank's share of a tensor file: read before the run, written after it.
#pragma once

#include <string>
#include <vector>

#include "job.hpp"
#include "plait/attention.hpp"
#include "plait/host_memory.hpp"
#include "tensor_file.hpp"

namespace plait {

/// The shape that tensors q, k and v of a file give together. @throws FileError, InvalidProblem that say
/// which tensor does not fit
[[nodiscard]] Shape read_shape(TensorReader const& input);

/// This rank's rows of q, k and v, and room for out and lse, in the order of its layout's slices.
class RankTensors {
 public:
  /// Reads the rows. @throws FileError
  RankTensors(TensorReader const& input, Plan const& plan, int rank);
  /// Rows of random numbers, uniform in (-1, 1), for timing: they depend on the rank and its layout, not on
  /// how many threads make them.
  RankTensors(Plan const& plan, int rank, int threads);

  /// Makes room on the device, unless it computes in host memory, and copies the inputs there. @throws
  /// std::bad_alloc
  void place(Device& device);
  /// Copies the outputs from the device.
  void fetch();
  /// What the device computes on.
  [[nodiscard]] LocalTensors views();
  [[nodiscard]] TensorView q() const;
  [[nodiscard]] TensorView out() const;
  [[nodiscard]] std::span<float const> lse() const { return lse_; }

  /// Writes out and lse of all ranks to `path`, which appears whole or not at all. Collective.
  void write(Job const& job, std::string const& path);

 private:
  RankTensors(Plan const& plan, int rank, HostVector<std::byte> q, HostVector<std::byte> k,
              HostVector<std::byte> v);

  Shape shape_;
  std::vector<Slice> q_slices_;
  Index q_rows_ = 0;
  Index kv_rows_ = 0;
  HostVector<std::byte> q_;
  HostVector<std::byte> k_;
  HostVector<std::byte> v_;
  HostVector<std::byte> out_;
  HostVector<float> lse_;

  /// Copies in a device's memory; null where that is the host's.
  struct Placed {
    std::unique_ptr<DeviceMemory> q, k, v, out, lse;
  };
  Device* device_ = nullptr;
  Placed placed_;
};

/// Fails early where the output could not be written: no such directory, not writable, no room.
/// @throws FileError
void require_writable(std::string const& path, Shape const& shape);

}  // namespace plait
