// The MPI transport's one knob, for tests.
#pragma once

#include <memory>

#include "plait/mpi_transport.hpp"

namespace plait {

/// Payload bytes of one chunk of a message. Smaller shows progress sooner, larger costs less per byte.
inline constexpr std::size_t default_chunk_bytes = std::size_t{8} << 20;

[[nodiscard]] std::unique_ptr<Transport> make_mpi_transport(World const& world, std::size_t chunk_bytes);

}  // namespace plait
