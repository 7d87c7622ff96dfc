// Which transport serves a job: decided in one place, with the reason in words.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

enum class TransportKind : std::uint8_t { automatic, mpi, nccl, peer };

[[nodiscard]] std::string_view name(TransportKind kind);  ///< "auto", "mpi", "nccl", "peer"

/// A transport was asked for that can't serve this job; the message says why, and what works.
class NoTransport : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct TransportChoice {
  std::unique_ptr<Transport> transport;
  std::string why;  ///< for people: "each rank has a GPU of its own"
};

/// Where this rank's regions lie.
struct DeviceQueue {
  void* stream = nullptr;  ///< cudaStream_t of the GPU's work; null = host memory
  std::string gpu;         ///< what tells GPUs apart on a host (the PCI id), empty = host memory
};

/// Chooses by what is asked for, where the memory is, and which GPUs the ranks have. Collective.
/// @throws NoTransport on every rank alike; PeerLost, CommError
[[nodiscard]] TransportChoice make_transport(World const& world, TransportKind asked,
                                             DeviceQueue const& queue);

/// NCCL's version, "2.28.3", or empty in a build without it.
[[nodiscard]] std::string nccl_version();

}  // namespace plait
