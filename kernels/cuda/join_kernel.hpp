// The end of a fold whose keys were split: the states of the parts become one.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>

#include "plait/device.hpp"
#include "split_rows.hpp"

namespace plait::cuda {

struct JoinArgs {
  SplitRows const* rows;  ///< on the device
  int count;
  int stride;  ///< from a part's state to the next one's, in rows; no tile is longer
  int most_parts;
  bool begins_early;  ///< from compute capability 9.0 on: it waits for the fold before it by itself
  StateView parts;    ///< scratch: [batch, heads, all parts' rows]
};

/// state ← (identity or state) ⊕ all parts, for the rows that are listed; or with an output, as
/// Device::finish, to that. The parts are merged in an order that is always the same. @throws CudaError
void launch_join(JoinArgs const& join, StateView const& state, Start start,
                 std::optional<Output> const& output, cudaStream_t stream);

}  // namespace plait::cuda
