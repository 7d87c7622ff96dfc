// The reference path: the definition of the online softmax, one row and one key at a time.
#include <cmath>
#include <limits>
#include <numbers>

#include "fold_path.hpp"

namespace plait::cpu {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A row's state, and how one more key changes it.
struct Row {
  float& m;
  float& l;
  float* o;
  Index value_dim;

  void see(float score, FoldOperands const& operands, void const* value) {
    if (score > m) {  // a new reference: what was summed so far is worth less
      float const kept = m == -infinity ? 0.0f : std::exp2(m - score);
      l *= kept;
      for (Index d = 0; d < value_dim; ++d) o[d] *= kept;
      m = score;
    }
    if (std::isnan(score) && m == -infinity) m = 0.0f;  // not the identity: a merge keeps the NaN
    float const weight = std::exp2(score - m);
    l += weight;
    for (Index d = 0; d < value_dim; ++d) o[d] += weight * load(operands.v.dtype, value, d);
  }
};

float dot(FoldOperands const& operands, void const* q, void const* k) {
  float sum = 0.0f;
  for (Index d = 0; d < operands.q.dim; ++d) {
    sum += load(operands.q.dtype, q, d) * load(operands.k.dtype, k, d);
  }
  return sum;
}

void fold_range(FoldItem const& item, KeyRange const& range, Index head) {
  FoldOperands const& operands = item.operands;
  StateView const& state = item.state;
  float const scale = operands.scale * std::numbers::log2e_v<float>;
  for (Index row = range.rows.begin; row < range.rows.end; ++row) {
    Index const at = item.origin + head * state.rows + row;
    Row mine{state.m[at], state.l[at], state.o + at * state.value_dim, state.value_dim};
    Slice const keys = intersect(range.keys, {row + range.lo, row + range.hi + 1});
    for (Index key = keys.begin; key < keys.end; ++key) {
      float const score = scale * dot(operands, operands.q.at(item.batch, row, head),
                                      operands.k.at(item.batch, key, item.kv_head));
      mine.see(score, operands, operands.v.at(item.batch, key, item.kv_head));
    }
  }
}

void fold(FoldItem const& item) {
  for (Index tile = item.tiles.begin; tile < item.tiles.end; ++tile) {
    Slice const ranges = ranges_of(item, tile);
    for (Index head = item.heads.begin; head < item.heads.end; ++head) {
      for (Index i = ranges.begin; i < ranges.end; ++i) fold_range(item, range_at(item, i), head);
    }
  }
}

}  // namespace

FoldPath scalar_path() {
  return {fold, fold, 0, [](Index, Index) { return std::size_t{0}; }};
}

}  // namespace plait::cpu
