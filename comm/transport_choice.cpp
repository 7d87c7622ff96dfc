#include "plait/transport_choice.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <set>

#include "nccl/transport.hpp"
#include "plait/mpi_transport.hpp"
#include "staging/staged_transport.hpp"

namespace plait {
namespace {

/// Which ranks have a GPU, and whether two share one. As every rank sees it.
struct Gpus {
  bool all_have_one = true;
  bool none_has_one = true;
  bool shared = false;
  bool pretend_hosts =
      false;  ///< NCCL_HOSTID is set on every rank: NCCL takes them for ranks of different hosts
};

Gpus look_at(World const& world, std::string const& gpu) {
  bool const pretends = std::getenv("NCCL_HOSTID") != nullptr;
  std::string const mine = fmt::format("{} {}", pretends ? 1 : 0, gpu);
  Gpus gpus{.pretend_hosts = true};
  std::set<std::pair<int, std::string>> seen;
  auto const texts = world.all_gather(std::as_bytes(std::span(mine)), "finding out which GPUs the ranks use");
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    std::string const text(reinterpret_cast<char const*>(texts[rank].data()), texts[rank].size());
    std::string const id = text.substr(2);
    gpus.pretend_hosts = gpus.pretend_hosts && text[0] == '1';
    gpus.all_have_one = gpus.all_have_one && !id.empty();
    gpus.none_has_one = gpus.none_has_one && id.empty();
    if (!id.empty() && !seen.emplace(world.places()[rank].node, id).second) gpus.shared = true;
  }
  return gpus;
}

/// Why NCCL can't serve; empty if it can.
std::string nccl_refuses(Gpus const& gpus) {
  if (nccl_version().empty()) return "this build has no NCCL";
  if (!gpus.all_have_one) return "NCCL moves device memory, and ranks compute on CPUs";
  if (gpus.shared && !gpus.pretend_hosts) return "ranks share a GPU, which NCCL refuses";
  return {};
}

}  // namespace

std::string_view name(TransportKind kind) {
  switch (kind) {
    case TransportKind::automatic:
      return "auto";
    case TransportKind::mpi:
      return "mpi";
    case TransportKind::nccl:
      return "nccl";
  }
  __builtin_unreachable();
}

TransportChoice make_transport(World const& world, TransportKind asked, DeviceQueue const& queue) {
  Gpus const gpus = look_at(world, queue.gpu);
  if (!gpus.all_have_one && !gpus.none_has_one) {
    throw NoTransport("some ranks compute on GPUs, others on CPUs: all must do the same");
  }
  std::string const refusal = nccl_refuses(gpus);
  if (asked == TransportKind::nccl && !refusal.empty()) {
    throw NoTransport(fmt::format("transport nccl: {}; transport mpi works", refusal));
  }
  if (gpus.none_has_one) return {make_mpi_transport(world), "the tensors are in host memory"};
  bool const asked_for_mpi = asked == TransportKind::mpi;
  if (asked_for_mpi || !refusal.empty()) {
    return {make_staged_transport(make_mpi_transport(world), make_cuda_copies(queue.stream),
                                  make_cuda_copies(queue.stream)),
            fmt::format("{}; device memory goes through pinned host memory",
                        asked_for_mpi ? "asked for" : refusal)};
  }
  return {make_nccl_transport(world, queue.stream),
          asked == TransportKind::nccl ? "asked for" : "each rank has a GPU of its own"};
}

}  // namespace plait
