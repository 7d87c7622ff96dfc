// Measures the machine that a job runs on: what simulations need to know of its ranks and links.
#pragma once

#include <string>
#include <vector>

#include "calibration_steps.hpp"
#include "device_choice.hpp"
#include "job.hpp"
#include "plait/machine.hpp"
#include "run_flags.hpp"

namespace plait {

struct CalibrationOptions {
  RunOptions run;
  ElementShape elements;
  double seconds = 10.0;  ///< to measure for, roughly: everything is measured three times at least
  std::string name = "calibrated";
};

/// What was measured, and what the machine's numbers make of it.
struct Measured {
  std::string what;
  double seconds = 0.0;
  double fitted_seconds = 0.0;
};

struct Calibration {
  Machine machine;
  std::vector<Measured> measurements;
  std::vector<std::string> findings;  ///< for people: how well the numbers fit what was measured, and more
  std::string warning;                ///< for people: why to repeat it; empty if all is well
};

/// Measures with all ranks of the job at once: they share cores, memory and links as they will in a run.
/// Whole attentions are timed first and last: if they took more than 10% longer at one end, the machine
/// changed its speed meanwhile, the faster end counts, and there is a warning. The machine's sources tell
/// both times. Collective; every rank gets the same result.
/// @throws Reported for hosts with different numbers of ranks, or without what the options ask for; PeerLost,
/// CommError
[[nodiscard]] Calibration calibrate(Job const& job, CalibrationOptions const& options);

}  // namespace plait
