#include "device_choice.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace plait {
namespace {

/// Whether another rank of this host uses the GPU too. Processes may each see GPUs of their own, under any
/// number: the PCI id tells them apart.
bool others_use(World const& world, std::string const& pci) {
  auto const all = world.all_gather(std::as_bytes(std::span(pci)), "the choice of GPUs");
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::string const other(reinterpret_cast<char const*>(all[rank].data()), all[rank].size());
    bool const same_host = world.places()[rank].node == world.place().node;
    if (static_cast<int>(rank) != world.rank() && same_host && !other.empty() && other == pci) return true;
  }
  return false;
}

/// This rank's GPU, or why it has none.
struct Found {
  int index = 0;
  std::string missing;
};

Found find_gpu(World const& world, bool share) {
  Found found{.missing = cuda_unavailable()};
  std::string pci;
  if (found.missing.empty()) {
    std::vector<CudaDeviceInfo> const gpus = cuda_devices();
    auto const neighbours =
        static_cast<int>(std::ranges::count(world.places(), world.place().node, &Place::node));
    try {
      found.index = choose_gpu(world.place().local_rank, neighbours, static_cast<int>(gpus.size()), share);
      pci = gpus[static_cast<std::size_t>(found.index)].pci;
    } catch (Unsupported const& error) {
      found.missing = error.what();
    }
  }
  if (others_use(world, pci) && !share) {
    found.missing = fmt::format("several ranks of this host would use GPU {}; --share-gpu allows it", pci);
  }
  return found;
}

}  // namespace

int choose_gpu(int local_rank, int local_ranks, int visible, bool share) {
  if (visible == 1 || share) return local_rank % visible;
  if (local_ranks > visible) {
    throw Unsupported(
        fmt::format("{} ranks on this host, which sees {} GPUs; start fewer, or let ranks share with "
                    "--share-gpu",
                    local_ranks, visible));
  }
  return local_rank;
}

DeviceChoice choose_device(Job const& job, std::string const& asked, bool share) {
  if (asked == "cpu") return {.why = "asked for"};
  Found const found = find_gpu(job.world(), share);
  if (asked == "cuda") {
    job.together("finding GPUs", [&] {
      if (!found.missing.empty())
        throw Unsupported(fmt::format("device cuda: {}; --device cpu works", found.missing));
    });
    return {.kind = DeviceKind::cuda, .cuda = {.index = found.index}, .why = "asked for"};
  }
  auto const missing = job.gather(found.missing.empty() ? 0 : 1, "finding GPUs");
  if (std::ranges::count(missing, 1) > 0) {
    return {.why = found.missing.empty() ? "other ranks have no GPU of their own"
                                         : fmt::format("no GPU: {}", found.missing)};
  }
  return {.kind = DeviceKind::cuda, .cuda = {.index = found.index}, .why = "each rank has a GPU"};
}

}  // namespace plait
