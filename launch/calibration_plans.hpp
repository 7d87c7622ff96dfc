// Whole attentions that a calibration times at both of its ends: pieces alone do not tell all, and a machine
// that others use changes its speed.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "calibration_steps.hpp"
#include "device_choice.hpp"
#include "job.hpp"
#include "plait/strategy.hpp"
#include "run_flags.hpp"

namespace plait {

/// Seconds of the same plans in a calibration's first seconds and in its last. Both as many, each above 0.
struct BothEnds {
  std::vector<double> first;
  std::vector<double> last;
};

/// Ends count as of one speed if all plans together took up to so many times as long at one as at the other.
constexpr double same_speed = 1.1;
[[nodiscard]] bool of_one_speed(BothEnds const& ends);

/// The times to predict by. If the ends are of one speed, the mean of both, plan by plan: it foretells the
/// next job's better than either end does. Else those of the faster end: what others do on a machine only
/// makes it slower.
[[nodiscard]] std::vector<double> undisturbed(BothEnds const& ends);

/// "whole attentions took 181 ms at its start, 236 ms at its end", all plans together.
[[nodiscard]] std::string describe(BothEnds const& ends);

/// Small plans over all ranks of a job, some in which folds take most of the time, some in which transfers
/// do.
class PlanBench {
 public:
  /// None on GPUs, and for one rank or very many. `job` outlives it.
  PlanBench(Job const& job, DeviceChoice const& device, RunOptions const& options,
            ElementShape const& elements);

  [[nodiscard]] std::span<Plan const> plans() const { return plans_; }
  /// Seconds of each: the median of so many passes over all, so many runs of each in a pass, and one before
  /// that does not count. Collective. @throws PeerLost, CommError, Reported
  [[nodiscard]] std::vector<double> times(int passes, int runs) const;

 private:
  Job const& job_;
  DeviceChoice device_;
  RunOptions options_;
  std::vector<Plan> plans_;
};

/// "attention by ring, 1536 tokens, 8:1 heads".
[[nodiscard]] std::string describe(Plan const& plan);

}  // namespace plait
