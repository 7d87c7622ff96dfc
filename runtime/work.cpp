#include "plait/work.hpp"

#include <algorithm>
#include <cmath>

namespace plait {

FoldWork fold_work(Problem const& problem, Block const& q, Block const& kv, Start start) {
  Shape const& shape = problem.shape;
  auto const pairs = static_cast<double>(problem.mask.area(q.slice, kv.slice));
  auto const heads = static_cast<double>(shape.batch * q.heads.size() * shape.group());
  Block rows = q;
  rows.tensor = Tensor::state;
  double const state = static_cast<double>(bytes(rows, shape)) * (start == Start::carried ? 2.0 : 1.0);
  return {.flops = 2.0 * pairs * heads * static_cast<double>(shape.head_dim + shape.value_dim),
          .bytes = static_cast<double>(bytes(q, shape)) + static_cast<double>(bytes(kv, shape)) + state,
          .query_heads = heads,
          .rows = static_cast<double>(q.slice.size())};
}

double busy_share(FoldWork const& work, Machine const& machine) {
  double const tiles = work.query_heads * std::ceil(work.rows / machine.tile_rows);
  return tiles == 0 ? 1.0 : std::min(1.0, tiles / machine.units);
}

double seconds(FoldWork const& work, Machine const& machine) {
  return machine.fold_seconds + work.flops / (machine.flops_per_second * busy_share(work, machine)) +
         work.bytes / machine.memory_bytes_per_second;
}

double merge_bytes(Block const& state, Shape const& shape) {
  constexpr double reads_and_writes = 3.0;
  return reads_and_writes * static_cast<double>(bytes(state, shape));
}

double finish_bytes(Block const& state, Block const& out, Shape const& shape) {
  return static_cast<double>(bytes(state, shape)) + static_cast<double>(bytes(out, shape));
}

double step_seconds(double bytes, Machine const& machine) {
  return machine.step_seconds + bytes / machine.memory_bytes_per_second;
}

}  // namespace plait
