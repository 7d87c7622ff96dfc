// The flags of a run that is timed, whatever it runs on: device, transport, threads, how often, how patient.
#pragma once

#include <chrono>
#include <string>

#include "command_line.hpp"
#include "plait/transport_choice.hpp"
#include "plait/world.hpp"

namespace plait {

struct RunOptions {
  std::string device;
  bool share_gpu = false;
  TransportKind transport = TransportKind::automatic;
  int threads = 0;  ///< 0 = chosen from the cores and the ranks of the host
  int repeat = 1;
};

/// --device, --share-gpu, --transport, --threads, --repeat, --timeout.
/// @param repeat_default  0: the command has no --repeat
void add_run_flags(po::options_description& flags, int repeat_default);
/// @throws UsageError
[[nodiscard]] RunOptions parse_run(CommandLine const& line, int repeat_default);

/// --timeout among `words`, read leniently: it bounds also the exchange that finds out that flags are wrong.
[[nodiscard]] std::chrono::milliseconds timeout_of(Words const& words, po::options_description const& flags);

/// `asked`, or, if that is 0, OMP_NUM_THREADS, else the cores that this process may use, shared evenly among
/// the host's ranks unless they are bound already.
[[nodiscard]] int threads_per_rank(World const& world, int asked);

}  // namespace plait
