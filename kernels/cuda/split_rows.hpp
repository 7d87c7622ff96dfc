// Which states become one when a fold's keys were split: plain data that host and device share.
#pragma once

#include <cstdint>

namespace plait::cuda {

/// The rows [row_begin, row_end) of a query block, at most a tile, and the states of the parts of their keys:
/// row r of the i-th lies in scratch at `state_row` + i · `stride` + (r − row_begin). No part: the rows see
/// no key.
struct alignas(16) SplitRows {
  std::int32_t row_begin;
  std::int32_t row_end;
  std::int32_t state_row;
  std::int32_t parts;
};

}  // namespace plait::cuda
