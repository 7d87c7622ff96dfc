// A transport of host memory made to serve device memory: everything passes through buffers in the host's
// memory, in chunks, so that copies and messages overlap.
#pragma once

#include <memory>

#include "copy_queue.hpp"
#include "plait/transport.hpp"

namespace plait {

/// Payload bytes of one chunk of a message: large enough that a copy runs at full speed.
inline constexpr std::size_t staged_chunk_bytes = std::size_t{4} << 20;

/// @param inner        moves host memory
/// @param out, in      copy what is sent, and what is received
/// @param chunk_bytes  the same on every rank
[[nodiscard]] std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner,
                                                               std::unique_ptr<CopyQueue> out,
                                                               std::unique_ptr<CopyQueue> in,
                                                               std::size_t chunk_bytes = staged_chunk_bytes);

}  // namespace plait
