// What a step does to a device: flops and bytes touched, and the seconds that they take on a machine. The one
// place where they are counted: simulations predict with it, and calibration fits machines to it.
#pragma once

#include "plait/machine.hpp"
#include "plait/plan.hpp"

namespace plait {

struct FoldWork {
  double flops = 0.0;        ///< 2 · kept pairs · query heads · batch · (head_dim + value_dim)
  double edge_flops = 0.0;   ///< what one key more would take, of each row that a sloped edge cuts short
  double row_bytes = 0.0;    ///< queries read, state written, and read unless it starts there
  double key_bytes = 0.0;    ///< keys and values read
  double query_heads = 0.0;  ///< times batch: each has row tiles of its own
  double rows = 0.0;  ///< of one query head; of a single query, heads that share keys count as rows of one
  double keys = 0.0;
};

/// The work of folding key/value block `kv` into the state of query block `q`. Rows without a key of the
/// block, and keys without a row, count neither as bytes nor as tiles, except in a state that starts here.
[[nodiscard]] FoldWork fold_work(Problem const& problem, Block const& q, Block const& kv, Start start);

/// The share of the machine's rate that a fold reaches, up to 1: by how much of its row tiles is rows, and of
/// the units is busy with them, or with parts of their keys (Machine).
[[nodiscard]] double busy_share(FoldWork const& work, Machine const& machine);

/// Machine::fold_seconds + row_bytes / memory_bytes_per_second, and the products' time, (flops + edge_keys ·
/// edge_flops) / (rate · share), and the keys', key_bytes / key_bytes_per_second: the sum of both on a
/// machine of one unit, the larger one on one of several.
[[nodiscard]] double seconds(FoldWork const& work, Machine const& machine);

/// Bytes that a merge of a state touches (both states in, one out), and that a finish does (state in, output
/// out).
[[nodiscard]] double merge_bytes(Block const& state, Shape const& shape);
[[nodiscard]] double finish_bytes(Block const& state, Block const& out, Shape const& shape);

/// Machine::step_seconds + bytes / merge_bytes_per_second; memory_bytes_per_second for a finish.
[[nodiscard]] double merge_seconds(double bytes, Machine const& machine);
[[nodiscard]] double finish_seconds(double bytes, Machine const& machine);

}  // namespace plait
