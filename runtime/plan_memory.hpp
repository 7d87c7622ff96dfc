// One rank's memory for one plan: an arena for its slots, and blocks seen as tensors, states and regions.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "plait/attention.hpp"
#include "plait/transport.hpp"

namespace plait {

/// Resolves (block, slot) of this rank's program to views. Slots lie in one allocation of the device, each
/// aligned to 64 bytes; blocks at rest lie in the caller's tensors.
class PlanMemory {
 public:
  /// @throws std::bad_alloc
  PlanMemory(Plan const& plan, int rank, Device& device);

  /// The tensors that blocks at rest are part of, until the next call.
  void use(LocalTensors const& tensors);

  [[nodiscard]] TensorView q(BlockId id, SlotId slot) const;
  [[nodiscard]] TensorView k(BlockId id, SlotId slot) const;
  [[nodiscard]] TensorView v(BlockId id, SlotId slot) const;
  /// The state of the rows and heads of a query or state block; `at_rest` gives the identity (null memory).
  [[nodiscard]] StateView state(BlockId id, SlotId slot) const;
  /// Where the rows of an out block are written; its lse is null at rest if the caller wants none.
  [[nodiscard]] Output output(BlockId id, SlotId slot) const;

  /// The block's bytes in wire order (q; k then v; m, l, O; out, lse), as few rows as may be, in a slot that
  /// is laid out as block `whole`.
  [[nodiscard]] std::vector<StridedRegion> pieces(BlockId id, SlotId slot, BlockId whole) const;

  [[nodiscard]] std::uint64_t slots_bytes() const { return arena_->bytes(); }
  /// Keeps all that was allocated alive, also beyond this object.
  [[nodiscard]] std::shared_ptr<void> keep_alive() const {
    return std::make_shared<std::array<std::shared_ptr<DeviceMemory>, 2>>(std::array{arena_, spare_lse_});
  }

 private:
  /// A block of an input or output: part of the `resting` tensor, or dense in a slot after so many bytes.
  template <class Data>
  [[nodiscard]] BasicTensorView<Data> tensor(BasicTensorView<Data> const& resting, Block const& block,
                                             Slice heads, Index dim, SlotId slot,
                                             std::size_t bytes_before) const;
  [[nodiscard]] std::byte* slot_data(SlotId slot) const {
    return arena_->data() + offsets_[static_cast<std::size_t>(slot)];
  }
  /// Query heads of a block: [begin, end).
  [[nodiscard]] Slice q_heads(Block const& block) const;
  /// Rows of this rank's local tensor that a block at rest lies in.
  [[nodiscard]] Slice local_rows(Block const& block) const;

  Plan const& plan_;
  int rank_;
  Index local_queries_;
  LocalTensors tensors_;
  std::shared_ptr<DeviceMemory> spare_lse_;  ///< for lse that arrives where the caller wants none
  std::vector<std::size_t> offsets_;
  std::shared_ptr<DeviceMemory> arena_;
};

}  // namespace plait
