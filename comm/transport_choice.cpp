#include "plait/transport_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
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

/// Why NCCL can't serve ranks on GPUs; empty if it can.
std::string nccl_refuses(Gpus const& gpus) {
  if (nccl_version().empty()) return "this build has no NCCL";
  if (gpus.shared && !gpus.pretend_hosts) return "ranks share a GPU, which NCCL refuses";
  return {};
}

PeerAttempt try_peer(World const& world, void* stream) {
  bool const one_host =
      std::ranges::all_of(world.places(), [](Place const& place) { return place.node == 0; });
  return one_host ? make_peer_transport(world, stream)
                  : PeerAttempt{.refusal = "the ranks are on several hosts"};
}

NoTransport refused(TransportKind kind, std::string const& why) {
  return NoTransport(fmt::format("transport {}: {}; transport mpi works", name(kind), why));
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
  bool const wants_peer = asked == TransportKind::peer;
  bool const wants_nccl = asked == TransportKind::nccl;
  if (gpus.none_has_one) {
    if (wants_peer || wants_nccl) throw refused(asked, "it moves device memory, and ranks compute on CPUs");
    return {make_mpi_transport(world), "the tensors are in host memory"};
  }
  if (asked == TransportKind::mpi) return staged(world, queue, "asked for");
  std::string not_peer;
  if (!wants_nccl) {
    PeerAttempt peer = try_peer(world, queue.stream);
    if (peer.transport) {
      return {std::move(peer.transport),
              wants_peer ? "asked for" : "the ranks' GPUs reach each other's memory"};
    }
    if (wants_peer) throw refused(asked, peer.refusal);
    not_peer = "; not peer: " + peer.refusal;
  }
  std::string const not_nccl = nccl_refuses(gpus);
  if (not_nccl.empty()) {
    return {make_nccl_transport(world, queue.stream),
            wants_nccl ? "asked for" : "each rank has a GPU of its own" + not_peer};
  }
  if (wants_nccl) throw refused(asked, not_nccl);
  return staged(world, queue, not_nccl + not_peer);
}

}  // namespace plait
