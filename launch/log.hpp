// Who speaks: what the launcher says of this process before MPI starts, and the prefix of every log line.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace plait {

/// From the launcher's environment (Open MPI, MVAPICH, MPICH, Slurm): nothing without a launcher.
[[nodiscard]] std::optional<int> launched_rank();

/// "[rank 2 host node7] MESSAGE" on stderr, in one write.
void log_line(int rank, std::string_view host, std::string_view message);
/// The same with this host's own name. Without a launcher the prefix is "plait: ".
void log_line(std::string_view message);

}  // namespace plait
