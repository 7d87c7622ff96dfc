// plait calibrate: measures the machine that this job runs on, for plait plan --machine.
#include <fmt/format.h>

#include <array>

#include "calibration.hpp"
#include "local_tensors.hpp"
#include "log.hpp"
#include "machine_file.hpp"
#include "report.hpp"
#include "size.hpp"
#include "subcommand.hpp"

namespace plait {
namespace {

po::options_description calibrate_flags() {
  po::options_description flags;
  po::options_description output("Output");
  auto add = output.add_options();
  add("output", text("FILE|-"), "the machine as JSON, to a file or stdout (default -)");
  add("name", text("NAME"), "of the machine (default calibrated)");
  add("explain", "list each measurement, and what the machine's numbers make of it");
  add("help,h", "this text");
  po::options_description measurement("Measurement");
  auto measure = measurement.add_options();
  measure("seconds", text("SECONDS"), "how long to measure, roughly (default 10)");
  measure("dtype", text("TYPE"), "f32, f16 or bf16 (default bf16)");
  measure("dim", text("D"), "width of a query or key head, 1 to 512 (default 128)");
  measure("value-dim", text("D"), "width of a value head, 1 to 512 (default: --dim)");
  po::options_description run("Run");
  add_run_flags(run, 0);
  flags.add(output).add(measurement).add(run);
  return flags;
}

struct CalibrateOptions {
  CalibrationOptions calibration;
  std::string output;
  bool explains = false;
};

std::string measurement_table(std::vector<Measured> const& measurements) {
  std::vector<std::vector<std::string>> rows = {{"", "measured", "fitted", "error"}};
  for (auto const& [what, seconds, fitted] : measurements) {
    rows.push_back({what, format_seconds(seconds), format_seconds(fitted),
                    fmt::format("{:+.0f}%", 100 * (fitted / seconds - 1))});
  }
  return format_table(rows);
}

CalibrateOptions parse_calibrate(Words const& words) {
  constexpr std::array<std::string_view, 3> names = {"f32", "f16", "bf16"};
  constexpr std::array types = {DType::f32, DType::f16, DType::bf16};
  constexpr double default_seconds = 10.0;
  constexpr Index default_dim = 128;
  CommandLine const line(words, calibrate_flags());
  auto const dim = [&](std::string const& flag, Index absent) {
    auto const value = line.get(flag);
    return value ? parse_size("--" + flag, *value, 1, max_head_dim) : absent;
  };
  CalibrateOptions options;
  options.calibration.run = parse_run(line, 0);
  options.calibration.name = line.get("name", "calibrated");
  if (auto const value = line.get("seconds")) {
    options.calibration.seconds = parse_real("--seconds", *value, 0);
  } else {
    options.calibration.seconds = default_seconds;
  }
  ElementShape& elements = options.calibration.elements;
  std::string const dtype = line.choose("dtype", "bf16", names);
  elements.dtype = types[static_cast<std::size_t>(std::ranges::find(names, dtype) - names.begin())];
  elements.head_dim = dim("dim", default_dim);
  elements.value_dim = dim("value-dim", elements.head_dim);
  options.output = line.get("output", "-");
  options.explains = line.has("explain");
  return options;
}

}  // namespace

ExitCode calibrate(Words const& words, std::unique_ptr<Job>& job) {
  if (asks_for_help(words)) {
    print_help("[mpirun -np P] plait calibrate [FLAGS]", calibrate_flags(),
               "  mpirun -np 8 plait calibrate --output here.json\n"
               "  plait plan --machine here.json --tokens 64K --heads 8 --ranks 8 --causal\n"
               "  srun plait calibrate --dtype f32 --dim 64 --name cluster --output cluster.json\n");
    return ExitCode::done;
  }
  job = std::make_unique<Job>(WorldOptions{.timeout = timeout_of(words, calibrate_flags())});
  CalibrateOptions const options = job->together("the flags", [&] { return parse_calibrate(words); });
  job->together("the output", [&] {
    if (job->speaks() && options.output != "-") require_writable(options.output, Shape{});
  });
  Calibration const found = calibrate(*job, options.calibration);
  job->together("the report", [&] {
    if (!job->speaks()) return;
    std::FILE* const people = options.output == "-" ? stderr : stdout;
    if (options.explains) fmt::print(people, "{}", measurement_table(found.measurements));
    for (std::string const& finding : found.findings) fmt::print(people, "{}\n", finding);
    if (!found.warning.empty()) {
      fmt::print(people, "{}\n", found.warning);
      if (people != stderr) log_line(found.warning);
    }
    fmt::print(people, "{}: {}\n", found.machine.name, found.machine.sources);
    write_json(options.output, machine_json(found.machine));
  });
  return ExitCode::done;
}

}  // namespace plait
