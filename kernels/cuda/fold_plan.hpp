// A fold as it was prepared: its kernel, and its tiles in the device's memory.
#pragma once

#include <string>
#include <vector>

#include "fold_kernel.hpp"
#include "join_kernel.hpp"
#include "memory.hpp"
#include "split.hpp"

namespace plait::cuda {

/// The kernel of a fold, and its tiles: whole, or parts of tiles whose states are joined.
struct FoldTiles {
  FoldKernel kernel;
  KernelTiles list;
  std::vector<SplitRows> split;  ///< none: tiles are whole
  Index state_rows = 0;          ///< of a head in scratch, if they are not
  Index lanes = 0;               ///< that they are for; 0: any
  bool rows_are_heads = false;   ///< of one query, the heads of a key/value head are rows of one
};

/// The operands of a fold of one query, whose heads are rows of the key/value head that they read, so that
/// they read it once: the same memory, seen otherwise.
[[nodiscard]] FoldOperands heads_as_rows(FoldOperands operands);

/// Chooses the kernel; and pairs of tiles that load keys together, or parts of tiles, where either pays.
/// @throws Unsupported, saying what would work
[[nodiscard]] FoldTiles choose_tiles(CudaDeviceInfo const& device, FoldShape const& shape,
                                     std::optional<CudaKernel> forced);

/// In the device's memory: tiles, then segments, then rows whose keys are split.
class CudaFoldPlan : public FoldPlan {
 public:
  CudaFoldPlan(FoldShape const& shape, FoldTiles const& tiles);

  std::size_t bytes() const override { return memory_.bytes(); }
  std::string kernel() const override { return name_; }

  [[nodiscard]] FoldKernel const& launcher() const { return kernel_; }
  [[nodiscard]] Start start() const { return start_; }
  [[nodiscard]] bool finishes() const { return finishes_; }
  [[nodiscard]] bool is_empty() const { return tile_count_ == 0 && split_count_ == 0; }
  [[nodiscard]] std::int32_t tile_count() const { return tile_count_; }
  [[nodiscard]] std::int32_t cluster() const { return cluster_; }
  [[nodiscard]] std::int32_t tiles_per_turn() const { return tiles_per_turn_; }
  [[nodiscard]] Tile const* tiles() const { return reinterpret_cast<Tile const*>(memory_.data()); }
  [[nodiscard]] Segment const* segments() const {
    return reinterpret_cast<Segment const*>(memory_.data() + segments_at_);
  }

  /// Whether it takes operands as heads_as_rows sees them.
  [[nodiscard]] bool rows_are_heads() const { return rows_are_heads_; }

  /// Whether tiles are parts, which leave their states in scratch.
  [[nodiscard]] bool is_split() const { return split_count_ > 0; }
  /// Of how many query heads of all batch entries, as operands then have them, it is; 0: any.
  [[nodiscard]] Index lanes() const { return lanes_; }
  /// Of the parts' states, of all heads.
  [[nodiscard]] std::size_t scratch_bytes() const;
  [[nodiscard]] StateView parts(std::byte* scratch, Index batch, Index heads) const;
  [[nodiscard]] JoinArgs join(StateView const& parts) const;

 private:
  FoldKernel kernel_;
  Start start_;
  bool finishes_;
  bool rows_are_heads_;
  Index value_dim_;
  Index lanes_;
  Index state_rows_;
  std::int32_t tile_count_;
  std::int32_t cluster_;
  std::int32_t tiles_per_turn_;
  std::int32_t split_count_;
  std::int32_t most_parts_;
  std::string name_;
  std::size_t segments_at_;
  std::size_t split_at_;
  CudaMemory memory_;
};

}  // namespace plait::cuda
