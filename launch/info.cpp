// plait info: what this job runs on, what was found and what was not.
#include <fmt/format.h>
#include <unistd.h>

#include <array>

#include "log.hpp"
#include "plait/cpu_device.hpp"
#include "plait/cuda_device.hpp"
#include "plait/problem.hpp"
#include "plait/strategy.hpp"
#include "plait/transport_choice.hpp"
#include "report.hpp"
#include "size.hpp"
#include "subcommand.hpp"

namespace plait {
namespace {

po::options_description info_flags() {
  po::options_description flags("Flags");
  flags.add_options()("json", text("FILE|-"), "the same as JSON, to a file or stdout")("help,h", "this text");
  return flags;
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> version{};
  int length = 0;
  MPI_Get_library_version(version.data(), &length);
  std::string text(version.data(), static_cast<std::size_t>(length));
  return text.substr(0, text.find_first_of(",\n"));
}

/// The GPUs that rank 0 sees.
Json gpus_json() {
  Json gpus = Json::array();
  for (CudaDeviceInfo const& gpu : cuda_devices()) {
    gpus.push_back({{"index", gpu.index},
                    {"name", gpu.name},
                    {"pci", gpu.pci},
                    {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
                    {"multiprocessors", gpu.multiprocessors},
                    {"memory_bytes", gpu.memory_bytes}});
  }
  return gpus;
}

std::string gpus_in_words(Json const& cuda) {
  if (cuda["gpus"].empty()) return fmt::format("none ({})", cuda["missing"].get<std::string>());
  std::string text;
  for (Json const& gpu : cuda["gpus"]) {
    text += fmt::format("{}{}: {}, {}, compute capability {}, {}", text.empty() ? "" : "; ",
                        gpu["index"].dump(), gpu["name"].get<std::string>(), gpu["pci"].get<std::string>(),
                        gpu["compute_capability"].get<std::string>(),
                        format_bytes(gpu["memory_bytes"].get<std::uint64_t>()));
  }
  return text;
}

Json info_json(Job const& job) {
  Json ranks = Json::array();
  for (Place const& place : job.world().places()) {
    ranks.push_back({{"rank", place.rank},
                     {"host", place.host},
                     {"pid", place.pid},
                     {"node", place.node},
                     {"local_rank", place.local_rank}});
  }
  Json isas = Json::array();
  for (CpuIsa const isa : supported_isas()) isas.push_back(name(isa));
  Json strategy_names = Json::array();
  for (Strategy const& strategy : strategies()) strategy_names.push_back(strategy.name);
  std::string const no_gpu = cuda_unavailable();
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  return {{"ranks", ranks},
          {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
          {"mpi", {{"library", mpi_library()}, {"thread_multiple", level == MPI_THREAD_MULTIPLE}}},
          {"devices",
           {{"cpu", {{"paths", isas}, {"chosen", make_cpu_device()->describe()}}},
            {"cuda", {{"missing", no_gpu}, {"gpus", gpus_json()}}}}},
          {"transports", {{"mpi", "available"}, {"nccl", nccl_version()}, {"peer", no_gpu.empty()}}},
          {"strategies", strategy_names},
          {"max_head_dim", max_head_dim}};
}

void print_info(std::FILE* people, Json const& info) {
  std::vector<std::vector<std::string>> rows = {{"rank", "host", "pid", "node", "local rank"}};
  for (Json const& rank : info["ranks"]) {
    rows.push_back({rank["rank"].dump(), rank["host"].get<std::string>(), rank["pid"].dump(),
                    rank["node"].dump(), rank["local_rank"].dump()});
  }
  std::string paths;
  for (Json const& path : info["devices"]["cpu"]["paths"])
    paths += fmt::format(" {}", path.get<std::string>());
  fmt::print(people, "{}\n  cores on rank 0's host: {}\n  MPI: {}, MPI_THREAD_MULTIPLE {}\n",
             format_table(rows), info["cores"].dump(), info["mpi"]["library"].get<std::string>(),
             info["mpi"]["thread_multiple"].get<bool>() ? "yes" : "no");
  std::string const nccl = info["transports"]["nccl"].get<std::string>();
  fmt::print(people,
             "  device cpu: {} (paths that this processor runs:{}; PLAIT_CPU_ISA chooses)\n"
             "  device cuda: {}\n  transport mpi: available\n  transport nccl: {}\n"
             "  transport peer: {}\n"
             "  head and value dimensions: 1 to {} on CPUs, 1 to 256 on GPUs\n",
             info["devices"]["cpu"]["chosen"].get<std::string>(), paths,
             gpus_in_words(info["devices"]["cuda"]), nccl.empty() ? "not in this build" : nccl,
             info["transports"]["peer"].get<bool>()
                 ? "between GPUs of one host that reach each other, which a job finds out"
                 : info["devices"]["cuda"]["missing"].get<std::string>(),
             info["max_head_dim"].dump());
}

}  // namespace

ExitCode info(Words const& words, std::unique_ptr<Job>& job) {
  if (asks_for_help(words)) {
    print_help("plait info [FLAGS]", info_flags(),
               "  plait info\n  mpirun -np 4 plait info --json info.json\n");
    return ExitCode::done;
  }
  job = std::make_unique<Job>(WorldOptions{});
  auto const target =
      job->together("the flags", [&] { return CommandLine(words, info_flags()).get("json"); });
  job->together("the report", [&] {
    if (!job->speaks()) return;
    Json const report = info_json(*job);
    print_info(target == "-" ? stderr : stdout, report);
    if (target) write_json(*target, report);
  });
  return ExitCode::done;
}

}  // namespace plait
