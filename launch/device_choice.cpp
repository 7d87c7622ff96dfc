#include "device_choice.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace plait {
namespace {

/// GPUs that are told apart across processes, each of which may see others: ranks that use one GPU, by its
/// PCI id.
bool others_use(Job const& job, std::string const& pci) {
  World const& world = job.world();
  auto const all = world.all_gather(std::as_bytes(std::span(pci)), "the choice of GPUs");
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::string const other(reinterpret_cast<char const*>(all[rank].data()), all[rank].size());
    bool const same_host = world.places()[rank].node == world.place().node;
    if (static_cast<int>(rank) != world.rank() && same_host && !other.empty() && other == pci) return true;
  }
  return false;
}

}  // namespace

int choose_gpu(int local_rank, int local_ranks, int visible, bool share) {
  if (visible == 1 || share)
    return local_rank % visible;  // of several processes with one GPU each: others_use
  if (local_ranks > visible) {
    throw Unsupported(
        fmt::format("device cuda: {} ranks on this host, which sees {} GPUs; start fewer, or let ranks share "
                    "with --share-gpu",
                    local_ranks, visible));
  }
  return local_rank;
}

DeviceChoice choose_device(Job const& job, std::string const& asked, bool share) {
  if (asked == "cpu") return {.why = "asked for"};
  World const& world = job.world();
  std::string const missing = cuda_unavailable();
  if (asked == "cuda") {
    job.together("finding GPUs", [&] {
      if (!missing.empty()) throw Unsupported(fmt::format("device cuda: {}; --device cpu works", missing));
    });
  } else if (auto const all = job.gather(missing.empty() ? 1 : 0, "finding GPUs");
             std::ranges::count(all, 0) > 0) {
    return {.why = missing.empty() ? "other ranks have no GPU" : fmt::format("no GPU: {}", missing)};
  }
  auto const neighbours =
      static_cast<int>(std::ranges::count(world.places(), world.place().node, &Place::node));
  std::vector<CudaDeviceInfo> const gpus = cuda_devices();
  int index = 0;
  job.together("choosing GPUs", [&] {
    index = choose_gpu(world.place().local_rank, neighbours, static_cast<int>(gpus.size()), share);
  });
  bool const shared = others_use(job, gpus[static_cast<std::size_t>(index)].pci);
  job.together("choosing GPUs", [&] {
    if (shared && !share) {
      throw Unsupported(
          fmt::format("device cuda: several ranks of this host would use GPU {}; --share-gpu allows it",
                      gpus[static_cast<std::size_t>(index)].pci));
    }
  });
  return {.kind = DeviceKind::cuda,
          .cuda = {.index = index},
          .why = asked == "cuda" ? "asked for" : "a GPU was found"};
}

}  // namespace plait
