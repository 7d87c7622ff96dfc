// Shares one fold out over threads: tiles and heads where there are enough of them, else the keys of each
// tile.
#pragma once

#include "fold_path.hpp"

namespace plait::cpu {

/// Scratch of every thread: a path's, and a partial state for keys that are split.
class FoldScratch {
 public:
  FoldScratch() = default;
  FoldScratch(FoldPath const& path, Index head_dim, Index value_dim, int threads);

  [[nodiscard]] std::size_t bytes() const { return per_thread() * static_cast<std::size_t>(threads_); }
  void place(std::byte* memory) { memory_ = memory; }
  /// The least scratch that serves what both serve.
  [[nodiscard]] FoldScratch larger(FoldScratch const& other) const;

  [[nodiscard]] float* path(int thread) const;
  [[nodiscard]] float* partial(int thread) const;

 private:
  [[nodiscard]] std::size_t per_thread() const { return path_bytes_ + partial_bytes_; }

  int threads_ = 0;
  std::size_t path_bytes_ = 0;
  std::size_t partial_bytes_ = 0;
  std::byte* memory_ = nullptr;
};

/// operands.state ← operands.state ⊕ attention. The result does not depend on the number of threads where
/// there are as many items (tiles × heads) as threads; else it is the same for the same number of threads.
void fold(FoldPath const& path, TileList const& list, FoldOperands const& operands, int threads,
          FoldScratch const& scratch);

}  // namespace plait::cpu
