#include "attend_flags.hpp"

#include "exit_code.hpp"
#include "mask_flags.hpp"
#include "problem_flags.hpp"
#include "size.hpp"

namespace plait {
namespace {

constexpr std::string_view all_affordable = "all";
constexpr int default_repeat = 1;

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
  add_run_flags(run, default_repeat);
  run.add_options()(
      "check", optional_text("[ROWS]", std::string(all_affordable)),
      "compare with an fp64 oracle: ROWS evenly spread rows, or as many as are quick; exit code 3 if the "
      "error is above the tolerance (the output is kept)");
  po::options_description output("Reports");
  output.add_options()("json", text("FILE|-"), "the report as JSON; with - stdout carries nothing else")(
      "trace", text("FILE"), "what each rank did when, as Chrome trace JSON (ui.perfetto.dev)")("help,h",
                                                                                                "this text");
  flags.add(files).add(mask_flags()).add(plan).add(machine_flags()).add(run).add(output);
  return flags;
}

AttendOptions parse_attend(Words const& words) {
  CommandLine const line(words, attend_flags());
  auto const rows = line.get("check");
  bool const counted = rows && *rows != all_affordable;
  return {.line = line,
          .input = line.require("input"),
          .output = line.get("output"),
          .strategy = parse_strategy(line),
          .layout = parse_layout(line),
          .reduce = parse_reduce(line),
          .machine = parse_machine(line),
          .run = parse_run(line, default_repeat),
          .checks = rows.has_value(),
          .check_rows = counted ? std::optional(parse_size("--check", *rows, 1)) : std::nullopt,
          .json = line.get("json"),
          .trace = line.get("trace")};
}

}  // namespace plait
