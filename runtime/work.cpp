#include "plait/work.hpp"

#include <algorithm>
#include <cmath>

namespace plait {

namespace {

/// The rows and keys that the mask leaves anything to do, as one range each, and rows at sloped edges: one
/// that is cut on both sides counts twice.
struct Reach {
  Slice rows;
  Slice keys;
  Index edge_rows = 0;
};

/// Rows of a band that end before its last key, or begin after its first, because of its slope.
Index edge_rows(Band const& band) {
  // Row r keeps the keys from r + lo to r + hi; all numbers of a tight band are positions, or beyond any.
  auto const rows = static_cast<double>(band.q.size());
  double const ends =
      static_cast<double>(band.kv.end) - 1 - static_cast<double>(band.hi) - static_cast<double>(band.q.begin);
  double const begins =
      static_cast<double>(band.q.end) - 1 - static_cast<double>(band.kv.begin) + static_cast<double>(band.lo);
  return static_cast<Index>(std::clamp(ends, 0.0, rows) + std::clamp(begins, 0.0, rows));
}

Reach reach(Mask const& mask, Slice q, Slice kv, Index area) {
  if (area > 0 && area == q.size() * kv.size()) return {q, kv};  // nothing is cut off
  std::vector<Band> const bands = mask.restricted(q, kv);
  if (bands.empty()) return {};
  Reach reach{bands.front().q, bands.front().kv};
  for (Band const& band : bands) {
    reach.edge_rows += edge_rows(band);
    reach.rows = {std::min(reach.rows.begin, band.q.begin), std::max(reach.rows.end, band.q.end)};
    reach.keys = {std::min(reach.keys.begin, band.kv.begin), std::max(reach.keys.end, band.kv.end)};
  }
  return reach;
}

}  // namespace

FoldWork fold_work(Problem const& problem, Block const& q, Block const& kv, Start start) {
  Shape const& shape = problem.shape;
  Index const area = problem.mask.area(q.slice, kv.slice);
  auto const pairs = static_cast<double>(area);
  auto const heads = static_cast<double>(shape.batch * q.heads.size() * shape.group());
  auto const [rows, keys, edges] = reach(problem.mask, q.slice, kv.slice, area);
  auto const bytes_of = [&](Tensor tensor, Slice slice, HeadRange of) {
    return static_cast<double>(bytes({.tensor = tensor, .slice = slice, .heads = of}, shape));
  };
  // A fold that starts a state writes all of its rows, and reads none.
  double const state = start == Start::carried ? 2.0 * bytes_of(Tensor::state, rows, q.heads)
                                               : bytes_of(Tensor::state, q.slice, q.heads);
  // As a GPU takes them (Device::prepare).
  bool const rows_are_heads = rows.size() == 1;
  auto const group = static_cast<double>(rows_are_heads ? shape.group() : 1);
  double const flops_per_pair = 2.0 * heads * static_cast<double>(shape.head_dim + shape.value_dim);
  return {.flops = pairs * flops_per_pair,
          .edge_flops = static_cast<double>(edges) * flops_per_pair,
          .row_bytes = bytes_of(Tensor::q, rows, q.heads) + state,
          .key_bytes = bytes_of(Tensor::kv, keys, kv.heads),
          .query_heads = heads / group,
          .rows = group * static_cast<double>(rows.size()),
          .keys = static_cast<double>(keys.size())};
}

double busy_share(FoldWork const& work, Machine const& machine) {
  constexpr double keys_of_a_part = 1024;
  double const tiles = work.query_heads * std::ceil(work.rows / machine.tile_rows);
  if (machine.units == 1 || tiles == 0) return 1.0;
  double const filled = work.query_heads * work.rows / (tiles * machine.tile_rows);
  double const parts = std::max(1.0, work.keys / keys_of_a_part);
  return filled * std::min(1.0, tiles * parts / machine.units);
}

double seconds(FoldWork const& work, Machine const& machine) {
  double const flops = work.flops + machine.edge_keys * work.edge_flops;
  double const products = flops / (machine.flops_per_second * busy_share(work, machine));
  double const keys = work.key_bytes / machine.key_bytes_per_second;
  return machine.fold_seconds + work.row_bytes / machine.memory_bytes_per_second +
         (machine.units == 1 ? products + keys : std::max(products, keys));
}

double merge_bytes(Block const& state, Shape const& shape) {
  constexpr double reads_and_writes = 3.0;
  return reads_and_writes * static_cast<double>(bytes(state, shape));
}

double finish_bytes(Block const& state, Block const& out, Shape const& shape) {
  return static_cast<double>(bytes(state, shape)) + static_cast<double>(bytes(out, shape));
}

double merge_seconds(double bytes, Machine const& machine) {
  return machine.step_seconds + bytes / machine.merge_bytes_per_second;
}

double finish_seconds(double bytes, Machine const& machine) {
  return machine.step_seconds + bytes / machine.memory_bytes_per_second;
}

}  // namespace plait
