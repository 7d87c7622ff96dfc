#include "plan_memory.hpp"

namespace plait {
namespace {

constexpr std::size_t slot_alignment = 64;

/// Appends the view's bytes, row by row, joining neighbours that touch; but not with what was there before: two
/// tensors side by side are two allocations, which a GPU's copy may not cross.
void append_pieces(TensorView const& view, std::vector<Region>& pieces) {
  std::size_t const first = pieces.size();
  std::size_t const run = static_cast<std::size_t>(view.dim) * size_bytes(view.dtype);
  for (Index b = 0; b < view.batch; ++b) {
    for (Index row = 0; row < view.rows; ++row) {
      for (Index head = 0; head < view.heads; ++head) {
        // Regions serve both directions; a region that is sent is only read.
        auto* const data = static_cast<std::byte*>(const_cast<void*>(view.at(b, row, head)));
        if (pieces.size() > first && pieces.back().data + pieces.back().bytes == data) {
          pieces.back().bytes += run;
        } else {
          pieces.push_back({data, run});
        }
        if (head == 0 && view.head_stride == view.dim) {  // the row's heads are one piece
          pieces.back().bytes += run * static_cast<std::size_t>(view.heads - 1);
          break;
        }
      }
      if (row == 0 && view.head_stride == view.dim &&
          view.row_stride == view.heads * view.dim) {  // so are the rows
        pieces.back().bytes += run * static_cast<std::size_t>(view.heads * (view.rows - 1));
        break;
      }
    }
  }
}

}  // namespace

PlanMemory::PlanMemory(Plan const& plan, int rank, Device& device)
    : plan_(plan), rank_(rank), local_queries_(plan.layouts.q.tokens(rank)) {
  std::size_t total = 0;
  for (std::uint64_t const bytes : plan.programs[static_cast<std::size_t>(rank)].slots) {
    offsets_.push_back(total);
    total += (bytes + slot_alignment - 1) / slot_alignment * slot_alignment;
  }
  arena_ = device.allocate(total);
}

Slice PlanMemory::q_heads(Block const& block) const {
  Index const group = plan_.problem.shape.group();
  return {block.heads.begin * group, block.heads.end * group};
}

Slice PlanMemory::local_rows(Block const& block) const {
  Layout const& layout = block.tensor == Tensor::kv ? plan_.layouts.kv : plan_.layouts.q;
  Index const first = layout.local_row(rank_, block.slice.begin);
  return {first, first + block.slice.size()};
}

TensorView PlanMemory::input(TensorView const& resting, Block const& block, Slice heads, Index dim,
                             SlotId slot, Index elements_before) const {
  if (slot == at_rest) return resting.rows_of(local_rows(block)).heads_of(heads.begin, heads.end);
  Shape const& shape = plan_.problem.shape;
  return dense<void const>(
      slot_data(slot) + static_cast<std::size_t>(elements_before) * size_bytes(shape.dtype), shape.dtype,
      shape.batch, block.slice.size(), heads.size(), dim);
}

TensorView PlanMemory::q(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  return input(tensors_.q, block, q_heads(block), plan_.problem.shape.head_dim, slot, 0);
}

TensorView PlanMemory::k(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Slice const heads{block.heads.begin, block.heads.end};
  return input(tensors_.k, block, heads, plan_.problem.shape.head_dim, slot, 0);
}

TensorView PlanMemory::v(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Shape const& shape = plan_.problem.shape;
  Slice const heads{block.heads.begin, block.heads.end};
  Index const keys = shape.batch * block.slice.size() * heads.size() * shape.head_dim;
  return input(tensors_.v, block, heads, shape.value_dim, slot, keys);
}

StateView PlanMemory::state(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Shape const& shape = plan_.problem.shape;
  StateView const identity{.batch = shape.batch,
                           .heads = q_heads(block).size(),
                           .rows = block.slice.size(),
                           .value_dim = shape.value_dim};
  if (slot == at_rest) return identity;
  return state_view(slot_data(slot), identity.batch, identity.heads, identity.rows, identity.value_dim);
}

MutableTensorView PlanMemory::out(BlockId id) const {
  Block const& block = plan_.block(id);
  Slice const heads = q_heads(block);
  return tensors_.out.rows_of(local_rows(block)).heads_of(heads.begin, heads.end);
}

float* PlanMemory::lse(BlockId id) const {
  if (tensors_.lse == nullptr) return nullptr;
  Block const& block = plan_.block(id);
  return tensors_.lse + q_heads(block).begin * lse_head_stride() + local_rows(block).begin;
}

std::vector<Region> PlanMemory::pieces(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  if (slot != at_rest) return {{slot_data(slot), bytes(block, plan_.problem.shape)}};
  std::vector<Region> found;
  if (block.tensor == Tensor::q) {
    append_pieces(q(id, slot), found);
  } else {
    append_pieces(k(id, slot), found);
    append_pieces(v(id, slot), found);
  }
  return found;
}

}  // namespace plait
