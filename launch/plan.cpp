// plait plan: what a run would do, without running it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "explain.hpp"
#include "log.hpp"
#include "mask_flags.hpp"
#include "plait/simulate.hpp"
#include "plait/verify.hpp"
#include "problem_flags.hpp"
#include "report.hpp"
#include "size.hpp"
#include "subcommand.hpp"
#include "trace.hpp"

namespace plait {
namespace {

constexpr Index verified_ranks = 64;
constexpr Index most_ranks = 65536;
/// Beyond this a table of steps is no reading matter.
constexpr std::size_t most_round_rows = 2000;

po::options_description plan_flags() {
  po::options_description flags;
  po::options_description plan("Plan");
  plan.add_options()("ranks", text("P"), "ranks to plan for; needs no mpirun (default 1)");
  add_plan_flags(plan);
  plan.add_options()("verify", "prove the plan right also beyond 64 ranks")(
      "explain", "say in words how the plan was chosen")(
      "weigh", text("best|all|sampled"),
      "which plans are written out and simulated: those that may be the best (the choice is the same, but "
      "where they are too large the programs of a few ranks decide), all, or none (default best; all with "
      "--explain)")("rounds", "list what each rank folds and sends in each round");
  po::options_description output("Output");
  output.add_options()("json", text("FILE|-"), "the report as JSON, to a file or stdout")(
      "trace", text("FILE"), "the predicted timeline as Chrome trace JSON (ui.perfetto.dev)")("help,h",
                                                                                              "this text");
  flags.add(shape_flags()).add(mask_flags()).add(plan).add(machine_flags()).add(output);
  return flags;
}

Weigh parse_weigh(CommandLine const& line) {
  constexpr std::array<std::string_view, 3> names = {"best", "all", "sampled"};
  std::string const asked = line.choose("weigh", line.has("explain") ? "all" : "best", names);
  return asked == "all" ? Weigh::all : asked == "sampled" ? Weigh::sampled : Weigh::best;
}

std::string transfers_in_words(Plan const& plan, std::span<Transfer const> sends) {
  std::string words;
  for (Transfer const& send : sends) {
    words += fmt::format("{}{} to rank {}", words.empty() ? "" : "; ", describe(plan.block(send.block)),
                         send.peer);
  }
  return words;
}

std::string folds_in_words(Plan const& plan, std::span<Fold const> folds) {
  std::string words;
  for (Fold const& fold : folds) {
    Block const& q = plan.block(fold.q);
    Block const& kv = plan.block(fold.kv);
    words += fmt::format("{}q [{}, {}) x kv [{}, {})", words.empty() ? "" : "; ", q.slice.begin, q.slice.end,
                         kv.slice.begin, kv.slice.end);
  }
  return words;
}

std::string round_table(Plan const& plan) {
  std::size_t const lines = plan.rounds() * static_cast<std::size_t>(plan.ranks());
  if (lines > most_round_rows) {
    return fmt::format("--rounds: {} rounds of {} ranks are too many to list; see --trace\n", plan.rounds(),
                       plan.ranks());
  }
  std::vector<std::vector<std::string>> rows = {{"round", "rank", "merges", "folds", "sends"}};
  for (std::size_t index = 0; index < plan.rounds(); ++index) {
    for (std::size_t rank = 0; rank < plan.programs.size(); ++rank) {
      Round const round = plan.programs[rank].round(index);
      rows.push_back({std::to_string(index), std::to_string(rank), std::to_string(round.merges.size()),
                      folds_in_words(plan, round.folds), transfers_in_words(plan, round.sends)});
    }
  }
  return format_table(rows);
}

std::vector<std::string> rank_names(int ranks) {
  std::vector<std::string> names;
  for (int rank = 0; rank < ranks; ++rank) names.push_back(fmt::format("rank {} (predicted)", rank));
  return names;
}

/// What is known of all ranks: null if the plan was not written out.
Json whole_plan_json(Choice const& choice, Volume const& volume) {
  if (!choice.simulation) {
    return {{"exposed_comm_seconds", nullptr},
            {"critical_path", nullptr},
            {"bytes", nullptr},
            {"slots_bytes", nullptr}};
  }
  Simulation const& simulation = *choice.simulation;
  return {{"exposed_comm_seconds", simulation.exposed_comm_seconds.empty()
                                       ? 0.0
                                       : *std::ranges::max_element(simulation.exposed_comm_seconds)},
          {"critical_path",
           {{"rank", simulation.critical_rank},
            {"fold_seconds", simulation.critical.fold},
            {"merge_seconds", simulation.critical.merge},
            {"node_seconds", simulation.critical.node},
            {"network_seconds", simulation.critical.network},
            {"latency_seconds", simulation.critical.latency}}},
          {"bytes", {{"planned", volume.sent}, {"network", simulation.network_bytes}}},
          {"slots_bytes", volume.slots.empty() ? 0 : *std::ranges::max_element(volume.slots)}};
}

Json plan_json(Choice const& choice, Volume const& volume) {
  Plan const& plan = choice.plan;
  double const seconds = choice.predicted_seconds;
  Json json = {{"strategy", plan.strategy},
               {"layout", choice.layout},
               {"device", "simulated"},
               {"transport", "simulated"},
               {"ranks", plan.ranks()},
               {"shape", shape_json(plan.problem.shape)},
               {"seconds", {{"predicted", seconds}, {"by", choice.simulation ? "simulation" : "estimate"}}},
               {"tflops", seconds > 0 ? plan.problem.flops() / seconds / 1e12 : 0.0}};
  json.update(whole_plan_json(choice, volume));
  json["candidates"] = candidates_json(choice.candidates);
  return json;
}

std::string verdict(Choice const& choice, bool asked) {
  if (!asked && choice.plan.ranks() > verified_ranks) return "not verified (more than 64 ranks; --verify)";
  require_verified(choice.plan);
  return "verified: coverage, residency, matching, homecoming, memory";
}

/// Writes out and simulates what was chosen by samples, if more is asked than they tell.
void complete(Choice& choice, CommandLine const& line, Machine const& machine) {
  bool const traces = line.has("trace");
  bool const verifies = line.has("verify") || choice.plan.ranks() <= verified_ranks;
  if (!choice.simulation && (traces || verifies || line.has("rounds"))) {
    choice.plan =
        make_plan(choice.plan.problem, Layouts(choice.plan.layouts), std::string(choice.plan.strategy));
    choice.sampled.clear();
  }
  if (choice.sampled.empty() && (!choice.simulation || traces)) {
    choice.simulation = simulate(choice.plan, machine, traces ? Record::timeline : Record::nothing);
    choice.predicted_seconds = choice.simulation->seconds;
  }
}

std::string prediction_in_words(Choice const& choice) {
  if (!choice.simulation) {
    return fmt::format(
        "  predicted: about {}, an estimate by the programs of {} ranks. The whole plan is too large to be "
        "written out and\n"
        "  simulated in passing; --weigh all, or --strategy {} --layout {}, does\n",
        format_seconds(choice.predicted_seconds), choice.sampled.size(), choice.plan.strategy, choice.layout);
  }
  Simulation const& simulation = *choice.simulation;
  return fmt::format(
      "  predicted: {}, of which {} waiting for transfers on the rank that waits most\n"
      "  critical path, ending on rank {}: {}\n",
      format_seconds(simulation.seconds),
      format_seconds(*std::ranges::max_element(simulation.exposed_comm_seconds)), simulation.critical_rank,
      in_words(simulation.critical));
}

}  // namespace

ExitCode plan(Words const& words, std::unique_ptr<Job>&) {
  po::options_description const flags = plan_flags();
  if (asks_for_help(words)) {
    print_help("plait plan --tokens N --ranks P [FLAGS]", flags,
               "  plait plan --tokens 1M --heads 64:8 --dim 128 --causal --ranks 64\n"
               "  plait plan --tokens 4K --ranks 4 --strategy ring --rounds --trace ring.json\n"
               "  plait plan --tokens 128K --heads 8 --window 4K,0 --ranks 16 --machine h200 --json -\n");
    return ExitCode::done;
  }
  CommandLine const line(words, flags);
  Problem const problem = parse_problem(line, parse_shape(line));
  auto const ranks = static_cast<int>(parse_size("--ranks", line.get("ranks", "1"), 1, most_ranks));
  Machine const machine = parse_machine(line);
  auto const start = std::chrono::steady_clock::now();
  Choice choice = select_plan(problem, ranks, parse_strategy(line), parse_layout(line), machine,
                              parse_reduce(line), parse_weigh(line));
  double const planning = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  complete(choice, line, machine);
  std::string const proof = verdict(choice, line.has("verify"));
  Volume const moved = volume(choice.plan);

  if (launched_rank().value_or(0) != 0) return ExitCode::done;
  std::FILE* const people = line.get("json") == "-" ? stderr : stdout;
  fmt::print(people, "Problem: {}\n\n{}\n{}{}  {}\n", describe(problem),
             candidate_table(choice.candidates, choice.plan.strategy, choice.layout), describe(choice, moved),
             prediction_in_words(choice), proof);
  fmt::print(people, "  planning: {} of {} plan{} weighed to the end, in {}\n",
             std::ranges::count_if(choice.candidates, [](auto const& one) { return one.weight.has_value(); }),
             choice.candidates.size(), choice.candidates.size() == 1 ? "" : "s", format_seconds(planning));
  if (line.has("explain")) fmt::print(people, "\n{}", explain(choice, machine));
  if (line.has("rounds")) fmt::print(people, "\n{}", round_table(choice.plan));
  if (auto const path = line.get("trace")) {
    write_file(*path, trace_json(choice.simulation->timeline, choice.plan, rank_names(ranks)));
  }
  if (auto const target = line.get("json")) write_json(*target, plan_json(choice, moved));
  return ExitCode::done;
}

}  // namespace plait
