#include "fold_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "call.hpp"

namespace plait::cuda {
namespace {

/// Tiles of about 256 key blocks, which take 0.3 to 0.4 ms: what else waits for a multiprocessor waits so
/// long, and to begin anew takes some 1% of it.
std::int32_t tiles_in_a_turn(KernelTiles const& list) {
  constexpr Index blocks_of_a_turn = 256;
  auto const tiles = static_cast<Index>(list.tiles.size());
  return static_cast<std::int32_t>(
      std::max<Index>(1, blocks_of_a_turn * tiles / std::max<Index>(1, visited_blocks(list))));
}

std::int32_t most_parts(std::vector<SplitRows> const& split) {
  std::int32_t most = 0;
  for (SplitRows const& rows : split) most = std::max(most, rows.parts);
  return most;
}

std::string describe(FoldTiles const& tiles) {
  std::string name = tiles.kernel.describe();
  if (tiles.list.cluster > 1) name += ", in pairs that share keys";
  if (tiles.rows_are_heads) name += ", heads as rows";
  if (!tiles.split.empty()) name += fmt::format(", keys in up to {} parts", most_parts(tiles.split));
  return name;
}

TileList tile_list(FoldShape const& shape, Index tile_rows) {
  TileList list = make_tile_list(shape.q, shape.kv, shape.bands, tile_rows);
  // A state that is carried and not finished stays as it is where no key is seen.
  if (shape.start == Start::carried && !shape.finishes) list.unseeing.clear();
  return list;
}

/// Tiles in pairs that load keys together, where that outweighs what the pairs visit for one of their tiles
/// alone.
/// @param list  of the kernel's tiles
KernelTiles whole_tiles(FoldKernel const& kernel, FoldShape const& shape, TileList const& list) {
  KernelTiles alone = make_kernel_tiles(list, kernel.key_block);
  if (kernel.shared_key_time >= 1.0) return alone;
  KernelTiles pairs = make_kernel_tiles(tile_list(shape, 2 * kernel.tile_rows), kernel.key_block, 2);
  auto const time = kernel.shared_key_time * static_cast<double>(visited_blocks(pairs));
  return time < static_cast<double>(visited_blocks(alone)) ? pairs : alone;
}

/// Whether the bands leave anything out, however rows are tiled.
bool is_banded(FoldShape const& shape) {
  TileList const whole = make_tile_list(shape.q, shape.kv, shape.bands, std::max<Index>(shape.q.size(), 1));
  return whole.area() != whole.q_rows * whole.kv_rows;
}

/// What one query sees is the same for all rows that its heads become.
std::vector<Band> bands_of_all_heads(FoldShape const& shape) {
  std::vector<Band> bands;
  for (Band const& band : shape.bands) {
    Band const seen = tighten(intersect(band, shape.q, shape.kv));
    if (!seen.kv.empty()) bands.push_back({.q = {0, shape.group}, .kv = seen.kv});
  }
  return bands;
}

/// @param list  of the tiles of `kernel`, which leaves states
/// @returns nothing where tiles had better stay whole
std::optional<SplitTiles> parts_of(FoldKernel const& kernel, FoldShape const& shape, TileList const& list,
                                   Index multiprocessors) {
  if (!may_be_split(static_cast<Index>(list.tiles.size()), shape.lanes, multiprocessors)) return {};
  KernelTiles const whole = make_kernel_tiles(list, kernel.key_block);
  // Of folds into one state each may begin, and end, while another one runs.
  Index const neighbours = (shape.start == Start::carried ? 1 : 0) + (shape.finishes ? 0 : 1);
  Index const most = blocks_of_a_part(whole, shape.lanes, multiprocessors, neighbours);
  if (most == 0) return {};
  return split_keys(whole, most, kernel.key_block, kernel.tile_rows);
}

}  // namespace

FoldOperands heads_as_rows(FoldOperands operands) {
  Index const group = operands.q.heads / operands.k.heads;
  auto const seen = [group](auto& tensor) {
    tensor.rows = group;
    tensor.heads /= group;
    tensor.row_stride = tensor.head_stride;
    tensor.head_stride *= group;
  };
  seen(operands.q);
  operands.state.rows = group;
  operands.state.heads /= group;
  if (operands.output) {
    Output& output = *operands.output;
    seen(output.out);
    output.lse_row_stride = output.lse_head_stride;
    output.lse_head_stride *= group;
  }
  return operands;
}

FoldTiles choose_tiles(CudaDeviceInfo const& device, FoldShape const& given,
                       std::optional<CudaKernel> forced) {
  FoldShape shape = given;
  std::vector<Band> bands;
  bool const rows_are_heads = given.q.size() == 1 && given.group > 1 && given.lanes > 0;
  if (rows_are_heads) {
    bands = bands_of_all_heads(given);
    shape.q = {0, given.group};
    shape.bands = bands;
    shape.lanes /= given.group;
  }
  bool const banded = is_banded(shape);
  FoldShape parts = shape;  // they all leave states
  parts.start = Start::identity;
  parts.finishes = false;
  FoldKernel const for_parts = choose_fold_kernel(device, parts, banded, forced);
  FoldKernel const kernel = choose_fold_kernel(device, shape, banded, forced);
  TileList const list = tile_list(shape, kernel.tile_rows);  // the same for both
  if (auto split = parts_of(for_parts, shape, list, device.multiprocessors)) {
    return {.kernel = for_parts,
            .list = std::move(split->parts),
            .split = std::move(split->rows),
            .state_rows = split->state_rows,
            .lanes = shape.lanes,
            .rows_are_heads = rows_are_heads};
  }
  return {.kernel = kernel,
          .list = whole_tiles(kernel, shape, list),
          .split = {},
          .lanes = rows_are_heads ? shape.lanes : 0,
          .rows_are_heads = rows_are_heads};
}

CudaFoldPlan::CudaFoldPlan(FoldShape const& shape, FoldTiles const& tiles)
    : kernel_(tiles.kernel),
      start_(shape.start),
      finishes_(shape.finishes),
      rows_are_heads_(tiles.rows_are_heads),
      value_dim_(shape.value_dim),
      lanes_(tiles.lanes),
      state_rows_(tiles.state_rows),
      tile_count_(static_cast<std::int32_t>(tiles.list.tiles.size())),
      cluster_(tiles.list.cluster),
      tiles_per_turn_(tiles_in_a_turn(tiles.list)),
      split_count_(static_cast<std::int32_t>(tiles.split.size())),
      most_parts_(most_parts(tiles.split)),
      name_(describe(tiles)),
      segments_at_(tiles.list.tiles.size() * sizeof(Tile)),
      split_at_(segments_at_ + tiles.list.segments.size() * sizeof(Segment)),
      memory_(split_at_ + tiles.split.size() * sizeof(SplitRows)) {
  auto const copy = [&](auto const& from, std::size_t at) {
    if (from.empty()) return;
    PLAIT_CUDA(
        cudaMemcpy(memory_.data() + at, from.data(), from.size() * sizeof from[0], cudaMemcpyHostToDevice));
  };
  copy(tiles.list.tiles, 0);
  copy(tiles.list.segments, segments_at_);
  copy(tiles.split, split_at_);
}

std::size_t CudaFoldPlan::scratch_bytes() const {
  return state_bytes(1, lanes_, state_rows_, value_dim_);
}

StateView CudaFoldPlan::parts(std::byte* scratch, Index batch, Index heads) const {
  return state_view(scratch, batch, heads, state_rows_, value_dim_);
}

JoinArgs CudaFoldPlan::join(StateView const& parts) const {
  return {.rows = reinterpret_cast<SplitRows const*>(memory_.data() + split_at_),
          .count = split_count_,
          .stride = kernel_.tile_rows,
          .most_parts = most_parts_,
          .begins_early = kernel_.kind == CudaKernel::hopper,
          .parts = parts};
}

}  // namespace plait::cuda
