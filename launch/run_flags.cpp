#include "run_flags.hpp"

#include <fmt/format.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "exit_code.hpp"
#include "size.hpp"

namespace plait {
namespace {

constexpr double default_timeout_seconds = 60;

TransportKind parse_transport(CommandLine const& line) {
  constexpr std::array kinds = {TransportKind::automatic, TransportKind::mpi, TransportKind::nccl,
                                TransportKind::peer};
  std::array<std::string_view, kinds.size()> names;
  std::ranges::transform(kinds, names.begin(), [](TransportKind kind) { return name(kind); });
  std::string const asked(line.choose("transport", "auto", names));
  return kinds[static_cast<std::size_t>(std::ranges::find(names, asked) - names.begin())];
}

}  // namespace

void add_run_flags(po::options_description& flags, int repeat_default) {
  std::string const repeat_help = fmt::format("runs to time (default {})", repeat_default);
  auto add = flags.add_options();
  add("device", text("NAME"),
      "auto, cpu or cuda (default auto: GPUs if every rank has one); PLAIT_CPU_ISA forces a CPU path");
  add("share-gpu", "several ranks of a host may use one GPU");
  add("transport", text("NAME"),
      "auto, mpi, nccl or peer (default auto: copies between the GPUs of one host, else NCCL between GPUs, "
      "else MPI)");
  add("threads", text("N"),
      "threads per rank (default: OMP_NUM_THREADS, else the host's cores shared evenly)");
  if (repeat_default > 0) add("repeat", text("N"), repeat_help.c_str());
  add("timeout", text("SECONDS"),
      "longest wait for a rank that gives no sign of life (default 60); ten times that for one that is alive "
      "but does not do its part");
}

RunOptions parse_run(CommandLine const& line, int repeat_default) {
  constexpr Index most = 1'000'000;
  std::array<std::string_view, 3> const devices = {"auto", "cpu", "cuda"};
  auto const count = [&](std::string const& flag, int absent) {
    auto const value = line.get(flag);
    return static_cast<int>(value ? parse_size("--" + flag, *value, 1, most) : absent);
  };
  // Only to refuse a wrong one: timeout_of has read it.
  if (auto const value = line.get("timeout")) static_cast<void>(parse_real("--timeout", *value, 0));
  return {.device = std::string(line.choose("device", "auto", devices)),
          .share_gpu = line.has("share-gpu"),
          .transport = parse_transport(line),
          .threads = count("threads", 0),
          .repeat = count("repeat", repeat_default)};
}

std::chrono::milliseconds timeout_of(Words const& words, po::options_description const& flags) {
  double seconds = default_timeout_seconds;
  constexpr double longest_seconds = 1e9;
  try {
    if (auto const value = CommandLine(words, flags).get("timeout")) {
      seconds = std::min(parse_real("--timeout", *value, 0), longest_seconds);
    }
  } catch (UsageError const&) {
    // Reported once by all ranks together, when they have met.
  }
  return std::chrono::milliseconds(std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds * 1e3)));
}

int threads_per_rank(World const& world, int asked) {
  if (asked > 0) return asked;
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return omp_get_max_threads();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  int cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  bool const known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  if (known && CPU_COUNT(&allowed) < cores) return CPU_COUNT(&allowed);
  auto const neighbours =
      static_cast<int>(std::ranges::count(world.places(), world.place().node, &Place::node));
  return std::max(1, cores / neighbours);
}

}  // namespace plait
