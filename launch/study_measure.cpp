#include "study_measure.hpp"

#include <omp.h>

#include <algorithm>
#include <optional>

#include "local_tensors.hpp"

namespace plait {
namespace {

struct RunNumbers {
  double seconds = 0.0;
  double exposed_seconds = 0.0;
};

void check_mpi(int status, std::string const& what) {
  if (status != MPI_SUCCESS) throw CommError(what + " failed");
}

MPI_Comm communicator_of(int ranks) {
  MPI_Group everyone = MPI_GROUP_NULL;
  MPI_Group members = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &everyone), "MPI_Comm_group");
  int range[1][3] = {{0, ranks - 1, 1}};
  check_mpi(MPI_Group_range_incl(everyone, 1, range, &members), "MPI_Group_range_incl");
  MPI_Comm communicator = MPI_COMM_NULL;
  check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, members, ranks, &communicator), "MPI_Comm_create_group");
  MPI_Group_free(&members);
  MPI_Group_free(&everyone);
  return communicator;
}

}  // namespace

// All ranks have met just before, so that the calls of MPI, which know no deadline, find them there.
FirstRanks::FirstRanks(Job const& job, int ranks) {
  job.world().barrier("the first ranks' meeting");
  if (job.world().rank() >= ranks) return;
  communicator_ = communicator_of(ranks);
  world_ = std::make_unique<World>(communicator_, WorldOptions{.timeout = job.world().timeout()});
}

FirstRanks::~FirstRanks() {
  world_.reset();
  if (communicator_ != MPI_COMM_NULL) MPI_Comm_free(&communicator_);
}

MeasuredPoint measure_point(Job const& job, FirstRanks const& first, Plan const& plan,
                            DeviceChoice const& device, RunOptions const& options, Record record) {
  int const threads = threads_per_rank(job.world(), options.threads);
  std::optional<RankTensors> tensors;
  std::optional<Attention> attention;
  job.together("preparing the point", [&] {
    if (first.world() == nullptr) return;
    tensors.emplace(plan, first.world()->rank(), threads);
    attention.emplace(*first.world(), plan,
                      AttentionOptions{.device = device.kind,
                                       .cpu = {.threads = threads},
                                       .cuda = device.cuda,
                                       .transport = options.transport,
                                       .record = record});
    tensors->place(attention->device());
  });
  MeasuredPoint result;
  for (int run = -1; run < options.repeat; ++run) {
    RunReport const report = attention ? attention->run(tensors->views()) : RunReport{};
    std::vector<RunNumbers> const ranks =
        job.gather(RunNumbers{report.seconds, report.exposed_comm_seconds}, "the times of the run");
    if (run < 0) continue;
    double const seconds = std::ranges::max_element(ranks, {}, &RunNumbers::seconds)->seconds;
    double const exposed = std::ranges::max_element(ranks, {}, &RunNumbers::exposed_seconds)->exposed_seconds;
    result.seconds.push_back(seconds);
    result.exposed_shares.push_back(seconds > 0 ? exposed / seconds : 0.0);
    if (record == Record::timeline && run + 1 == options.repeat) {
      result.timeline = job.gather_list<Event>(report.timeline, "the timeline");
    }
  }
  return result;
}

}  // namespace plait
