// Ranks that share cores: how long each computes, when others compute meanwhile.
#pragma once

#include <span>

#include "plait/machine.hpp"

namespace plait {

/// What one rank of a crowd computes.
struct Share {
  double begin = 0.0;       ///< when it begins
  double work = 0.0;        ///< seconds that it would take while all compute
  double busy_until = 0.0;  ///< it computes something else until then
  double end = 0.0;         ///< found: when it is done
};

/// Sets each share's end: at any time, with n ranks computing, each advances min(alone_speedup, crowd_ranks /
/// n) seconds of work a second.
void share_cores(std::span<Share> crowd, Machine const& machine);

}  // namespace plait
