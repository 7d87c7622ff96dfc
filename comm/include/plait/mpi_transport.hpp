// MPI as a transport over host memory.
#pragma once

#include <memory>

#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

/// A transport with a communicator of its own, so that several can be in use at once, from several threads.
/// Collective; transports of a world are made in the same order on every rank. `world` outlives it.
[[nodiscard]] std::unique_ptr<Transport> make_mpi_transport(World const& world);

}  // namespace plait
