// How long a plan takes on a machine described by numbers: the plan's own rounds, event by event.
#pragma once

#include <vector>

#include "plait/plan.hpp"
#include "plait/timeline.hpp"

namespace plait {

/// One level of machine: equal ranks, each with one full-duplex link.
struct Machine {
  double flops_per_second = 50e9;        ///< of one rank's folds
  double bytes_per_second = 1e9;         ///< of one rank's link, each way
  double latency_seconds = 20e-6;        ///< per message
  double memory_bytes_per_second = 5e9;  ///< of merges and finishes: bytes read and written
};

struct Simulation {
  double seconds = 0.0;                      ///< until the last rank is done
  std::vector<double> exposed_comm_seconds;  ///< per rank: waiting for transfers with nothing to compute
  Timeline timeline;                         ///< empty unless asked for
};

enum class Record : std::uint8_t { nothing, timeline };

/// A transfer of a round starts once both ranks have begun the round; a rank's messages share its link in
/// order; a round ends for a rank when its folds, merges and transfers have.
[[nodiscard]] Simulation simulate(Plan const& plan, Machine const& machine, Record record);

}  // namespace plait
