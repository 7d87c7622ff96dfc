// Timing of small things on all ranks at once: in turn, sweep after sweep, because a machine's speed drifts.
#pragma once

#include <functional>
#include <vector>

#include "job.hpp"
#include "plait/transport.hpp"

namespace plait {

/// Seconds that it takes this rank to do a thing so many times over.
using Timed = std::function<double(int times)>;

/// A thing to time; all ranks list the same things in the same order.
struct Sample {
  Timed timed;
  /// It is repeated within a sample until the sample takes so long: clocks, and threads that take turns on
  /// cores that ranks share, then matter little.
  double least_seconds = 0.0;
};

class Sampler {
 public:
  /// Both must outlive it.
  Sampler(Job const& job, Transport& transport) : job_(job), transport_(transport) {}

  /// Times each sample in turn, all ranks starting together, until `seconds` have passed on rank 0 and at
  /// least three times. Collective. @returns seconds of one execution of each: every rank's mean without its
  /// longest tenth, and of those the largest. A run is a sum of many steps, whose chance delays add up as
  /// means do; the slowest rank decides when it ends.
  [[nodiscard]] std::vector<double> means(std::vector<Sample> const& samples, double seconds);
  /// The same, but of rank 0, which takes part in all: to compare it with itself, while the slowest of many
  /// ranks is slower than one by chance alone.
  [[nodiscard]] std::vector<double> first_means(std::vector<Sample> const& samples, double seconds);

 private:
  double slowest(double mine, char const* what) const;
  std::vector<double> own_means(std::vector<Sample> const& samples, double seconds);

  Job const& job_;
  Transport& transport_;
};

}  // namespace plait
