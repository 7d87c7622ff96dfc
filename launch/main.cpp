// plait: finds the subcommand, runs it, and turns whatever it throws into a message and an exit code.
#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "log.hpp"
#include "subcommand.hpp"

namespace {

using namespace plait;

constexpr std::array subcommands = {
    Subcommand{"attend", "one exact attention over tensors in a file; --check against an fp64 oracle",
               attend},
    Subcommand{"plan", "explain, without running: strategy, rounds, bytes, memory, predicted time", plan},
    Subcommand{"study", "scaling study: strong or weak, measured ranks then simulated ones; CSV, JSON, plots",
               study},
    Subcommand{"calibrate", "measure this job's ranks and links: a machine for plan and study --machine",
               calibrate},
    Subcommand{"generate", "write random tensors q, k and v of a given shape", generate},
    Subcommand{"info", "ranks, hosts, devices and transports: what was found and what was not", info},
};

void print_overview() {
  if (launched_rank().value_or(0) != 0) return;
  fmt::print(
      "plait: exact attention over sequences sharded across MPI ranks\n\n"
      "Usage: plait SUBCOMMAND [FLAGS]     (plait SUBCOMMAND --help explains the flags)\n\n");
  for (Subcommand const& subcommand : subcommands) {
    fmt::print("  {:<10} {}\n", subcommand.name, subcommand.summary);
  }
  fmt::print(
      "\nExamples:\n"
      "  plait generate --tokens 4K --heads 8:2 --output input.safetensors\n"
      "  mpirun -np 4 plait attend --input input.safetensors --causal --check\n"
      "  plait plan --tokens 1M --heads 64:8 --dim 128 --causal --ranks 64\n");
}

Subcommand const& find(std::string const& name) {
  std::vector<std::string> names;
  std::string list;
  for (Subcommand const& subcommand : subcommands) {
    if (subcommand.name == name) return subcommand;
    names.emplace_back(subcommand.name);
    list += fmt::format("{}{}", list.empty() ? "" : ", ", subcommand.name);
  }
  std::string const meant = nearest(name, names);
  throw UsageError(fmt::format("unknown subcommand {}; {}there are {} (see plait --help)", name,
                               meant.empty() ? "" : fmt::format("did you mean {}? ", meant), list));
}

ExitCode run(Words const& words, std::unique_ptr<Job>& job) {
  if (words.empty()) throw UsageError("which subcommand? plait --help lists them");
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    print_overview();
    return ExitCode::done;
  }
  return find(words[0]).run(Words(words.begin() + 1, words.end()), job);
}

/// Before MPI has started every rank of a launched job sees the same wrong usage: one of them says so.
void report(std::unique_ptr<Job> const& job, std::exception const& error) {
  if (job) {
    log_line(job->world().rank(), job->world().place().host, error.what());
  } else if (exit_code(error) != ExitCode::usage || launched_rank().value_or(0) == 0) {
    log_line(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::unique_ptr<Job> job;
  try {
    return static_cast<int>(run(Words(argv + 1, argv + argc), job));
  } catch (Reported const& reported) {
    return static_cast<int>(reported.code());
  } catch (std::exception const& error) {
    report(job, error);
    if (job) job->world().abort(static_cast<int>(exit_code(error)));
    return static_cast<int>(exit_code(error));
  }
}
