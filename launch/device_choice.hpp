// Which device each rank computes on.
#pragma once

#include <string>

#include "job.hpp"
#include "plait/attention.hpp"

namespace plait {

/// Of the GPUs that a process sees, the one for its rank: by local rank; the only one if there is just one.
/// @param local_rank   among the ranks of the host
/// @param local_ranks  their number
/// @param visible      GPUs that this process sees
/// @param share        several ranks may use one GPU
/// @throws Unsupported if ranks would have to share a GPU and must not
[[nodiscard]] int choose_gpu(int local_rank, int local_ranks, int visible, bool share);

/// What --device and --share-gpu ask for, on this job's hosts.
struct DeviceChoice {
  DeviceKind kind = DeviceKind::cpu;
  CudaOptions cuda = {};
  std::string why;  ///< for people, when it was left to us: "no GPU: built without CUDA"
};

/// @param asked  auto, cpu or cuda. auto takes GPUs if every rank has one. Collective.
/// @throws Unsupported where a GPU was asked for and there is none for this rank
[[nodiscard]] DeviceChoice choose_device(Job const& job, std::string const& asked, bool share);

}  // namespace plait
