// Measuring a point of a study: the plan run on the first ranks of the job.
#pragma once

#include <memory>
#include <vector>

#include "device_choice.hpp"
#include "job.hpp"
#include "plait/attention.hpp"
#include "run_flags.hpp"

namespace plait {

/// The first `ranks` ranks of a job as a world of their own; the others wait for them in the job's next
/// collective step. Construction and destruction are collective over those first ranks.
class [[nodiscard]] FirstRanks {
 public:
  FirstRanks(Job const& job, int ranks);
  ~FirstRanks();
  FirstRanks(FirstRanks const&) = delete;
  FirstRanks& operator=(FirstRanks const&) = delete;

  /// This rank's world; null if it is not one of them.
  [[nodiscard]] World const* world() const { return world_.get(); }

 private:
  MPI_Comm communicator_ = MPI_COMM_NULL;
  std::unique_ptr<World> world_;
};

struct MeasuredPoint {
  std::vector<double> seconds;         ///< per run, of the slowest rank
  std::vector<double> exposed_shares;  ///< per run, of the rank that waits most
  Timeline timeline;                   ///< of the last run, all ranks, if it was recorded
};

/// One warm-up and `options.repeat` runs of `plan` on random numbers. Collective over the whole job; all
/// ranks get the result. @throws Reported, CommError
[[nodiscard]] MeasuredPoint measure_point(Job const& job, FirstRanks const& first, Plan const& plan,
                                          DeviceChoice const& device, RunOptions const& options,
                                          Record record);

}  // namespace plait
