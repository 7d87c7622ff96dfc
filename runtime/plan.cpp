#include "plait/plan.hpp"

#include <fmt/format.h>

namespace plait {
namespace {

template <class Step>
std::span<Step const> cut(std::vector<Step> const& steps, std::uint32_t begin, std::uint32_t end) {
  return std::span(steps).subspan(begin, end - begin);
}

}  // namespace

std::string_view name(Tensor tensor) {
  switch (tensor) {
    case Tensor::q:
      return "q";
    case Tensor::kv:
      return "kv";
    case Tensor::state:
      return "state";
    case Tensor::out:
      return "out";
  }
  __builtin_unreachable();
}

std::uint64_t bytes(Block const& block, Shape const& shape) {
  auto const rows = static_cast<std::uint64_t>(shape.batch * block.slice.size());
  auto const heads = static_cast<std::uint64_t>(block.heads.size());
  auto const q_heads = heads * static_cast<std::uint64_t>(shape.group());
  auto const dim = static_cast<std::uint64_t>(shape.head_dim);
  auto const value_dim = static_cast<std::uint64_t>(shape.value_dim);
  switch (block.tensor) {
    case Tensor::q:
      return rows * q_heads * dim * size_bytes(shape.dtype);
    case Tensor::kv:
      return rows * heads * (dim + value_dim) * size_bytes(shape.dtype);
    case Tensor::state:
      return rows * q_heads * (value_dim + 2) * sizeof(float);
    case Tensor::out:
      return rows * q_heads * (sizeof(float) + value_dim * size_bytes(shape.dtype));
  }
  __builtin_unreachable();
}

std::string describe(Block const& block) {
  return fmt::format(
      "{} [{}, {}) heads [{}, {}) {}", name(block.tensor), block.slice.begin, block.slice.end,
      block.heads.begin, block.heads.end,
      block.home == Block::gathered ? "of several ranks" : fmt::format("of rank {}", block.home));
}

Round Program::round(std::size_t index) const {
  Cut const begin = index == 0 ? Cut{} : ends[index - 1];
  Cut const end = ends[index];
  return {.sends = cut(sends, begin.sends, end.sends),
          .receives = cut(receives, begin.receives, end.receives),
          .folds = cut(folds, begin.folds, end.folds),
          .merges = cut(merges, begin.merges, end.merges),
          .finishes = cut(finishes, begin.finishes, end.finishes),
          .reductions = cut(reductions, begin.reductions, end.reductions)};
}

}  // namespace plait
