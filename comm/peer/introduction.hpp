// What ranks of one host tell each other before their GPUs copy into one another's memory, and whether that
// works.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>
#include <string>
#include <vector>

#include "../cuda/stream.hpp"
#include "plait/world.hpp"

namespace plait {

/// Events of this rank and of the others, by which their streams follow each other.
struct PeerEvents {
  std::optional<CudaEvent> ready;     ///< this rank's memory may be written
  std::vector<CudaEvent> sent;        ///< by rank: what this one sends there has been written
  std::vector<CudaEvent> peer_ready;  ///< by rank: its `ready`; this rank's own: one that nobody records
  std::vector<CudaEvent> peer_sent;   ///< by rank: its `sent` to this one
};

/// Exchanges the events, and lets every rank write to every other one's memory once. Collective.
/// @returns why it does not work, in the same words on every rank; empty if it does
[[nodiscard]] std::string introduce(World const& world, PeerEvents& events);

}  // namespace plait
