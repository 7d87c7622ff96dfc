#include "attend_flags.hpp"

#include <fmt/format.h>

#include <array>

#include "exit_code.hpp"
#include "mask_flags.hpp"
#include "problem_flags.hpp"
#include "size.hpp"

namespace plait {
namespace {

constexpr std::string_view all_affordable = "all";
constexpr double default_timeout_seconds = 60;

TransportKind parse_transport(CommandLine const& line) {
  std::array<std::string_view, 3> const names = {"auto", "mpi", "nccl"};
  std::string const asked(line.choose("transport", "auto", names));
  return asked == "mpi"    ? TransportKind::mpi
         : asked == "nccl" ? TransportKind::nccl
                           : TransportKind::automatic;
}

}  // namespace

po::options_description attend_flags() {
  po::options_description flags;
  po::options_description files("Files");
  files.add_options()(
      "input", text("FILE"),
      "safetensors file with q [batch, tokens, heads, dim], k and v; F32, F16 or BF16; required")(
      "output", text("FILE"), "where out (like q) and lse (F32 [batch, heads, tokens]) are written");
  po::options_description plan("Plan");
  add_plan_flags(plan);
  po::options_description run("Run");
  run.add_options()("device", text("NAME"), "auto, cpu or cuda (default auto: GPUs if every rank has one)")(
      "share-gpu", "several ranks of a host may use one GPU")(
      "transport", text("NAME"), "auto, mpi or nccl (default auto: NCCL between GPUs, else MPI)")(
      "threads", text("N"),
      "threads per rank (default: OMP_NUM_THREADS, else the host's cores shared evenly)")(
      "check", optional_text("[ROWS]", std::string(all_affordable)),
      "compare with an fp64 oracle: ROWS evenly spread rows, or as many as are quick; exit code 3 if the "
      "error is "
      "above the tolerance (the output is kept)")("repeat", text("N"), "runs to time (default 1)")(
      "timeout", text("SECONDS"),
      "longest wait for a rank that gives no sign of life (default 60); ten times that for one that is alive "
      "but does not do its part");
  po::options_description output("Reports");
  output.add_options()("json", text("FILE|-"), "the report as JSON; with - stdout carries nothing else")(
      "trace", text("FILE"), "what each rank did when, as Chrome trace JSON (ui.perfetto.dev)")("help,h",
                                                                                                "this text");
  flags.add(files).add(mask_flags()).add(plan).add(run).add(output);
  return flags;
}

AttendOptions parse_attend(Words const& words) {
  constexpr Index most = 1'000'000;
  CommandLine const line(words, attend_flags());
  std::array<std::string_view, 3> const devices = {"auto", "cpu", "cuda"};
  auto const count = [&](std::string const& flag, Index absent) {
    auto const value = line.get(flag);
    return static_cast<int>(value ? parse_size("--" + flag, *value, 1, most) : absent);
  };
  // Only to refuse a wrong one: timeout_of has read it.
  if (auto const value = line.get("timeout")) static_cast<void>(parse_real("--timeout", *value, 0));
  auto const rows = line.get("check");
  bool const counted = rows && *rows != all_affordable;
  return {.line = line,
          .input = line.require("input"),
          .output = line.get("output"),
          .strategy = parse_strategy(line),
          .layout = parse_layout(line),
          .device = std::string(line.choose("device", "auto", devices)),
          .share_gpu = line.has("share-gpu"),
          .transport = parse_transport(line),
          .threads = count("threads", 0),
          .checks = rows.has_value(),
          .check_rows = counted ? std::optional(parse_size("--check", *rows, 1)) : std::nullopt,
          .repeat = count("repeat", 1),
          .json = line.get("json"),
          .trace = line.get("trace")};
}

std::chrono::milliseconds timeout_of(Words const& words) {
  double seconds = default_timeout_seconds;
  constexpr double longest_seconds = 1e9;
  try {
    if (auto const value = CommandLine(words, attend_flags()).get("timeout")) {
      seconds = std::min(parse_real("--timeout", *value, 0), longest_seconds);
    }
  } catch (UsageError const&) {
    // Reported once by all ranks together, when they have met.
  }
  return std::chrono::milliseconds(std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds * 1e3)));
}

}  // namespace plait
