// Folds and merges of given shapes on one rank's device, to be timed.
#pragma once

#include <memory>

#include "plait/device.hpp"
#include "plait/problem.hpp"
#include "plait/work.hpp"

namespace plait {

/// The shape of one fold, and whether its mask is causal.
struct FoldCase {
  Index rows = 0;
  Index keys = 0;
  Index q_heads = 1;
  Index kv_heads = 1;
  bool causal = false;
};

/// What all folds of a calibration share.
struct ElementShape {
  DType dtype = DType::bf16;
  Index head_dim = 128;
  Index value_dim = 128;
};

/// A problem of one batch entry.
[[nodiscard]] Shape shape_of(Index rows, Index keys, Index q_heads, Index kv_heads,
                             ElementShape const& elements);

/// One fold with operands of its own, random numbers in (−1, 1); the state is read and written. `device`
/// outlives it.
class FoldBench {
 public:
  /// @throws Unsupported, std::bad_alloc
  FoldBench(Device& device, FoldCase const& fold, ElementShape const& elements);

  [[nodiscard]] FoldWork work() const;
  /// Seconds for so many folds, one after the other.
  double operator()(int times);
  /// Queues one fold.
  void fold();

 private:
  void fold(FoldPlan const& plan);

  Device& device_;
  Problem problem_;
  std::unique_ptr<DeviceMemory> q_;
  std::unique_ptr<DeviceMemory> kv_;
  std::unique_ptr<DeviceMemory> state_;
  std::unique_ptr<FoldPlan> prepared_;
};

/// A merge of two states. `device` outlives it.
class MergeBench {
 public:
  MergeBench(Device& device, Index rows, Index heads, ElementShape const& elements);

  /// Bytes that it touches.
  [[nodiscard]] double bytes() const;
  double operator()(int times);

 private:
  Device& device_;
  Shape shape_;
  std::unique_ptr<DeviceMemory> from_;
  std::unique_ptr<DeviceMemory> into_;
};

}  // namespace plait
