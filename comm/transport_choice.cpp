#include "plait/transport_choice.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <set>

#include "nccl/transport.hpp"
#include "peer/transport.hpp"
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

/// Why ranks can't write to each other's memory, without a try; empty if they might.
std::string peer_refuses(World const& world, Gpus const& gpus) {
  if (!gpus.all_have_one) return "it moves device memory, and ranks compute on CPUs";
  if (world.places().back().node != 0) return "the ranks are on several hosts";
  return {};
}

TransportChoice staged(World const& world, DeviceQueue const& queue, std::string const& why) {
  return {make_staged_transport(make_mpi_transport(world), make_cuda_copies(queue.stream),
                                make_cuda_copies(queue.stream)),
          why + "; device memory goes through pinned host memory"};
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
    case TransportKind::peer:
      return "peer";
  }
  __builtin_unreachable();
}

TransportChoice make_transport(World const& world, TransportKind asked, DeviceQueue const& queue) {
  Gpus const gpus = look_at(world, queue.gpu);
  if (!gpus.all_have_one && !gpus.none_has_one) {
    throw NoTransport("some ranks compute on GPUs, others on CPUs: all must do the same");
  }
  std::string const nccl_refusal = nccl_refuses(gpus);
  auto const asked_for = [&](TransportKind kind, std::string const& refusal) {
    if (asked == kind && !refusal.empty()) {
      throw NoTransport(fmt::format("transport {}: {}; transport mpi works", name(kind), refusal));
    }
    return asked == kind;
  };
  std::string peer_refusal = peer_refuses(world, gpus);
  bool const wants_nccl = asked_for(TransportKind::nccl, nccl_refusal);
  if (!asked_for(TransportKind::peer, peer_refusal) && gpus.none_has_one) {
    return {make_mpi_transport(world), "the tensors are in host memory"};
  }
  if (asked == TransportKind::mpi) return staged(world, queue, "asked for");
  if (!wants_nccl && peer_refusal.empty()) {
    PeerTransport peer = make_peer_transport(world, queue.stream);
    peer_refusal = std::move(peer.refusal);
    bool const wanted = asked_for(TransportKind::peer, peer_refusal);
    if (peer.transport) {
      return {std::move(peer.transport), wanted ? "asked for" : "the ranks' GPUs reach each other's memory"};
    }
  }
  if (nccl_refusal.empty()) {
    return {make_nccl_transport(world, queue.stream),
            wants_nccl ? "asked for" : "each rank has a GPU of its own; not peer: " + peer_refusal};
  }
  return staged(world, queue, fmt::format("not peer: {}; not nccl: {}", peer_refusal, nccl_refusal));
}

}  // namespace plait
