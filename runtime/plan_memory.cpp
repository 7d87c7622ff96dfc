#include "plan_memory.hpp"

#include <algorithm>

#include "plait/rounding.hpp"

namespace plait {
namespace {

constexpr std::size_t slot_alignment = 64;

/// Adds `next` to `last`, of the same tensor, if the two are rows of one width and distance, or one piece.
/// @returns whether they are
bool join(StridedRegion& last, StridedRegion const& next) {
  if (last.rows == 1 && next.rows == 1 && last.data + last.width == next.data) {
    last.width += next.width;
    return true;
  }
  if (last.width != next.width) return false;
  if (last.rows == 1 && next.rows == 1 && last.data + last.width < next.data) {
    last.pitch = static_cast<std::size_t>(next.data - last.data);
  }
  bool const of_one_pitch = last.pitch > 0 && (next.rows == 1 || next.pitch == last.pitch);
  if (!of_one_pitch || last.row(last.rows) != next.data) return false;
  last.rows += next.rows;
  return true;
}

/// Appends rows, joined with those before where they go on as these do; but not with the first `before`,
/// which are of another tensor.
void append(StridedRegion rows, std::size_t before, std::vector<StridedRegion>& pieces) {
  if (rows.rows > 1 && rows.pitch == rows.width) rows = {rows.data, rows.bytes()};
  if (rows.rows == 1) rows.pitch = 0;
  if (pieces.size() > before && join(pieces.back(), rows)) return;
  pieces.push_back(rows);
}

/// Appends the view's bytes, row by row and head by head.
void append_tensor(TensorView const& view, std::vector<StridedRegion>& pieces) {
  std::size_t const before = pieces.size();
  std::size_t const element = size_bytes(view.dtype);
  auto const bytes = [&](Index elements) { return static_cast<std::size_t>(elements) * element; };
  // Rows serve both directions; what is sent is only read.
  auto const at = [&](Index b, Index row) {
    return static_cast<std::byte*>(const_cast<void*>(view.at(b, row, 0)));
  };
  bool const heads_touch = view.head_stride == view.dim || view.heads == 1;
  for (Index b = 0; b < view.batch && view.rows > 0; ++b) {
    if (heads_touch) {
      append({at(b, 0), bytes(view.heads * view.dim), bytes(view.row_stride),
              static_cast<std::size_t>(view.rows)},
             before, pieces);
      continue;
    }
    for (Index row = 0; row < view.rows; ++row) {
      append({at(b, row), bytes(view.dim), bytes(view.head_stride), static_cast<std::size_t>(view.heads)},
             before, pieces);
    }
  }
}

/// Appends the `elements` of each of so many dense lines of `line_elements` floats.
void append_lines(float* data, Index lines, Index line_elements, Slice elements,
                  std::vector<StridedRegion>& pieces) {
  append({reinterpret_cast<std::byte*>(data + elements.begin),
          static_cast<std::size_t>(elements.size()) * sizeof(float),
          static_cast<std::size_t>(line_elements) * sizeof(float), static_cast<std::size_t>(lines)},
         pieces.size(), pieces);
}

}  // namespace

PlanMemory::PlanMemory(Plan const& plan, int rank, Device& device)
    : plan_(plan), rank_(rank), local_queries_(plan.layouts.q.tokens(rank)) {
  Program const& program = plan.programs[static_cast<std::size_t>(rank)];
  std::size_t total = 0;
  for (std::uint64_t const bytes : program.slots) {
    offsets_.push_back(total);
    total += rounded_up(bytes, slot_alignment);
  }
  arena_ = device.allocate(total);
  bool const lse_arrives =
      std::ranges::any_of(program.receives, [&](Transfer const& receive) { return receive.slot == at_rest; });
  Shape const& shape = plan.problem.shape;
  auto const rows = static_cast<std::size_t>(shape.batch * shape.q_heads * local_queries_);
  if (lse_arrives) spare_lse_ = device.allocate(rows * sizeof(float));
}

void PlanMemory::use(LocalTensors const& tensors) {
  tensors_ = tensors;
  if (tensors_.lse == nullptr && spare_lse_) tensors_.lse = reinterpret_cast<float*>(spare_lse_->data());
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

template <class Data>
BasicTensorView<Data> PlanMemory::tensor(BasicTensorView<Data> const& resting, Block const& block,
                                         Slice heads, Index dim, SlotId slot,
                                         std::size_t bytes_before) const {
  if (slot == at_rest) return resting.rows_of(local_rows(block)).heads_of(heads.begin, heads.end);
  Shape const& shape = plan_.problem.shape;
  return dense<Data>(slot_data(slot) + bytes_before, shape.dtype, shape.batch, block.slice.size(),
                     heads.size(), dim);
}

TensorView PlanMemory::q(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  return tensor(tensors_.q, block, q_heads(block), plan_.problem.shape.head_dim, slot, 0);
}

TensorView PlanMemory::k(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Slice const heads{block.heads.begin, block.heads.end};
  return tensor(tensors_.k, block, heads, plan_.problem.shape.head_dim, slot, 0);
}

TensorView PlanMemory::v(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Shape const& shape = plan_.problem.shape;
  Slice const heads{block.heads.begin, block.heads.end};
  auto const keys =
      static_cast<std::size_t>(shape.batch * block.slice.size() * heads.size() * shape.head_dim);
  return tensor(tensors_.v, block, heads, shape.value_dim, slot, keys * size_bytes(shape.dtype));
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

Output PlanMemory::output(BlockId id, SlotId slot) const {
  Block const& block = plan_.block(id);
  Shape const& shape = plan_.problem.shape;
  Slice const heads = q_heads(block);
  Index const lse_rows = slot == at_rest ? local_queries_ : block.slice.size();
  Index const lse_heads = slot == at_rest ? shape.q_heads : heads.size();
  float* lse = tensors_.lse;
  if (slot != at_rest) {
    auto const elements = static_cast<std::size_t>(shape.batch * lse_rows * lse_heads * shape.value_dim);
    // Slots end on a multiple of 64 bytes, so there is room to align the lse.
    std::size_t const out_bytes = (elements * size_bytes(shape.dtype) + alignof(float) - 1) & -alignof(float);
    lse = reinterpret_cast<float*>(slot_data(slot) + out_bytes);
  } else if (lse != nullptr) {
    lse += heads.begin * lse_rows + local_rows(block).begin;
  }
  return {.out = tensor(tensors_.out, block, heads, shape.value_dim, slot, 0),
          .lse = lse,
          .lse_batch_stride = lse_heads * lse_rows,
          .lse_head_stride = lse_rows};
}

std::vector<StridedRegion> PlanMemory::pieces(BlockId id, SlotId slot, BlockId whole) const {
  Block const& block = plan_.block(id);
  if (slot != at_rest && id == whole && block.tensor != Tensor::out)
    return {{slot_data(slot), bytes(block, plan_.problem.shape)}};
  Block const& laid_out = plan_.block(whole);
  Index const before = block.slice.begin - laid_out.slice.begin;
  Slice const rows =
      slot == at_rest ? Slice{0, block.slice.size()} : Slice{before, before + block.slice.size()};
  std::vector<StridedRegion> found;
  switch (block.tensor) {
    case Tensor::q:
      append_tensor(q(whole, slot).rows_of(rows), found);
      break;
    case Tensor::kv:
      append_tensor(k(whole, slot).rows_of(rows), found);
      append_tensor(v(whole, slot).rows_of(rows), found);
      break;
    case Tensor::state: {
      StateView const state = this->state(whole, slot);
      Index const lines = state.batch * state.heads;
      append_lines(state.m, lines, state.rows, rows, found);
      append_lines(state.l, lines, state.rows, rows, found);
      Slice const elements{rows.begin * state.value_dim, rows.end * state.value_dim};
      append_lines(state.o, lines, state.rows * state.value_dim, elements, found);
      break;
    }
    case Tensor::out: {
      Output const output = this->output(whole, slot);
      append_tensor(output.out.rows_of(rows), found);
      for (Index b = 0; b < output.out.batch; ++b) {
        append_lines(output.lse + b * output.lse_batch_stride, output.out.heads, output.lse_head_stride, rows,
                     found);
      }
      break;
    }
  }
  return found;
}

}  // namespace plait
