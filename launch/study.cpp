// plait study: how attention scales, measured on the ranks that there are and simulated on those beyond.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "file_error.hpp"
#include "log.hpp"
#include "plait/simulate.hpp"
#include "size.hpp"
#include "study_flags.hpp"
#include "study_measure.hpp"
#include "study_plots.hpp"
#include "study_row.hpp"
#include "subcommand.hpp"
#include "trace.hpp"

namespace plait {
namespace {

/// A point of the study, planned and weighed.
struct Point {
  StudyRow row;
  std::optional<Plan> plan;  ///< none if it was refused
  Simulation simulation;
};

std::uint64_t largest(std::vector<std::uint64_t> const& values) {
  return values.empty() ? 0 : *std::ranges::max_element(values);
}

double largest_share(Simulation const& simulation) {
  if (simulation.seconds <= 0 || simulation.exposed_comm_seconds.empty()) return 0.0;
  return *std::ranges::max_element(simulation.exposed_comm_seconds) / simulation.seconds;
}

Point predict(StudyOptions const& options, Problem const& problem, int ranks, std::string const& strategy,
              Record record) {
  Point point;
  StudyRow& row = point.row;
  row.scaling = options.scaling;
  row.strategy = strategy;
  row.layout = options.layout;
  row.mask = mask_name(options.line);
  row.shape = problem.shape;
  row.ranks = ranks;
  row.flops = problem.flops();
  try {
    Choice choice = choose_plan(problem, ranks, strategy, options.layout, options.machine);
    Volume const moved = volume(choice.plan);
    point.simulation = simulate(choice.plan, options.machine, record);
    row.plan = choice.plan.strategy;
    row.layout = choice.layout;
    row.seconds = row.predicted_seconds = point.simulation.seconds;
    row.exposed_share = row.predicted_exposed_share = largest_share(point.simulation);
    row.bytes_max = largest(moved.sent);
    row.slots_bytes = largest(moved.slots);
    row.rounds = choice.plan.rounds();
    row.critical = point.simulation.critical;
    point.plan = std::move(choice.plan);
  } catch (InvalidProblem const& error) {
    row.refused = error.what();
    if (row.refused.empty()) row.refused = fmt::format("no variant of it fits {} ranks", ranks);
  }
  return point;
}

class Study {
  /// Job::together, also where there is no job.
  template <class Work>
  auto together(std::string const& what, Work&& work) const {
    return job_ == nullptr ? work() : job_->together(what, work);
  }

 public:
  /// @param job  null if there is no mpirun: then nothing is measured
  Study(StudyOptions const& options, Job const* job)
      : options_(options), job_(job), ranks_(job == nullptr ? 0 : job->world().size()) {
    if (job_ != nullptr) device_ = choose_device(*job_, options_.run.device, options_.run.share_gpu);
  }

  void run() {
    for (int const ranks : options_.ranks) {
      std::optional<FirstRanks> first;
      if (ranks <= ranks_) first.emplace(*job_, ranks);
      for (HeadPair const heads : options_.heads) {
        Problem const problem =
            together("the problem of a point", [&] { return study_problem(options_, heads, ranks); });
        for (std::string const& strategy : options_.strategies) {
          rows_.push_back(row(problem, ranks, strategy, first ? &*first : nullptr));
          tell(rows_.back());
        }
      }
    }
    set_efficiencies(rows_);
  }

  [[nodiscard]] std::vector<StudyRow> const& rows() const { return rows_; }

  /// The timeline that was asked for, or that stands for the study. Collective.
  TimelinePicture timeline() {
    // Rank 0 alone knows the simulated rows; measured ones are the same everywhere.
    int index = timeline_row();
    if (job_ != nullptr) index = job_->gather(index, "which timeline to draw").front();
    if (index < 0) return {};
    StudyRow const& row = rows_[static_cast<std::size_t>(index)];
    bool const measured = row.source == Source::measured;
    if (!measured && !speaks()) return {};
    Problem const problem = study_problem(options_, {row.shape.q_heads, row.shape.kv_heads}, row.ranks);
    Point point = predict(options_, problem, row.ranks, row.strategy, Record::timeline);
    if (measured) {
      FirstRanks const first(*job_, row.ranks);
      point.simulation.timeline =
          measure_point(*job_, first, *point.plan, device_, options_.run, Record::timeline).timeline;
    }
    return {.row = row, .plan = std::move(point.plan), .timeline = std::move(point.simulation.timeline)};
  }

 private:
  [[nodiscard]] bool speaks() const { return job_ == nullptr || job_->speaks(); }

  /// Every rank needs the plan of a point that is measured; for the others rank 0 is enough.
  StudyRow row(Problem const& problem, int ranks, std::string const& strategy, FirstRanks const* first) {
    if (first == nullptr) {
      StudyRow row;
      together("simulating a point", [&] {
        if (speaks()) row = simulated(problem, ranks, strategy).row;
      });
      return row;
    }
    Point point = job_->together("planning a point", [&] { return simulated(problem, ranks, strategy); });
    StudyRow& row = point.row;
    row.source = Source::measured;
    if (!point.plan) return row;
    MeasuredPoint const measured =
        measure_point(*job_, *first, *point.plan, device_, options_.run, Record::nothing);
    row.seconds = median(measured.seconds);
    row.exposed_share = median(measured.exposed_shares);
    row.seconds_min = *std::ranges::min_element(measured.seconds);
    row.seconds_max = *std::ranges::max_element(measured.seconds);
    return row;
  }

  Point simulated(Problem const& problem, int ranks, std::string const& strategy) {
    Point point = predict(options_, problem, ranks, strategy, Record::nothing);
    if (point.plan) point.row.predicted_one_rank_seconds = one_rank_seconds(problem);
    return point;
  }

  /// What the machine needs for the same problem on one rank: every strategy is the same fold there.
  double one_rank_seconds(Problem const& problem) {
    Shape const& shape = problem.shape;
    auto const [known, is_new] =
        one_rank_seconds_.try_emplace({shape.q_tokens, shape.q_heads, shape.kv_heads});
    if (is_new) {
      Choice const choice = choose_plan(problem, 1, "auto", "auto", options_.machine);
      known->second = simulate(choice.plan, options_.machine, Record::nothing).seconds;
    }
    return known->second;
  }

  void tell(StudyRow const& row) const {
    if (!speaks()) return;
    std::string const what = row.refused.empty() ? format_seconds(row.seconds) : "refused";
    fmt::print(stderr, "{} on {} rank{}, heads {}:{}: {} ({})\n", row.strategy, row.ranks,
               row.ranks == 1 ? "" : "s", row.shape.q_heads, row.shape.kv_heads, what, name(row.source));
  }

  /// Index of the row whose timeline is drawn; −1 if there is none.
  [[nodiscard]] int timeline_row() const {
    TimelinePoint const& asked = options_.timeline;
    StudyRow const* best = nullptr;
    for (StudyRow const& row : rows_) {
      if (!row.refused.empty()) continue;
      bool const fits =
          asked.ranks > 0 ? row.ranks == asked.ranks && row.strategy == asked.strategy : row.ranks > 1;
      bool const better = best == nullptr || (row.ranks == best->ranks && row.shape == best->shape &&
                                              row.seconds < best->seconds);
      if (fits && better) best = &row;
    }
    return best == nullptr ? -1 : static_cast<int>(best - rows_.data());
  }

  StudyOptions const& options_;
  Job const* job_;
  int ranks_;
  DeviceChoice device_;
  std::vector<StudyRow> rows_;
  std::map<std::tuple<Index, Index, Index>, double> one_rank_seconds_;
};

Json study_json(StudyOptions const& options, Words const& words, std::vector<StudyRow> const& rows) {
  std::string command = "plait study";
  for (std::string const& word : words) command += " " + word;
  Json list = Json::array();
  for (StudyRow const& row : rows) list.push_back(row_json(row));
  return {{"command", command},
          {"scaling", name(options.scaling)},
          {"efficiency", efficiency_formula},
          {"rows", std::move(list)}};
}

void write_reports(StudyOptions const& options, Words const& words, Study const& study,
                   TimelinePicture const& timeline) {
  std::FILE* const people = options.json == "-" ? stderr : stdout;
  fmt::print(people, "\n{}", rows_table(study.rows()));
  fmt::print(people, "\nefficiency = {}\n", efficiency_formula);
  if (options.csv) write_file(*options.csv, rows_csv(study.rows()));
  if (options.json) write_json(*options.json, study_json(options, words, study.rows()));
  if (!options.plots) return;
  std::error_code error;
  std::filesystem::create_directories(*options.plots, error);
  if (error) throw FileError(fmt::format("--plots {}: can't be made: {}", *options.plots, error.message()));
  for (Picture const& picture : study_pictures(study.rows(), timeline)) {
    std::string const path = (std::filesystem::path(*options.plots) / picture.file).string();
    write_file(path, picture.svg);
    fmt::print(people, "Plot: {}\n", path);
  }
}

}  // namespace

ExitCode study(Words const& words, std::unique_ptr<Job>& job) {
  if (asks_for_help(words)) {
    print_help(
        "[mpirun -np M] plait study --tokens N|--tokens-per-rank N --ranks LIST [FLAGS]", study_flags(),
        "  plait study --tokens 1M --heads 64:8 --dim 128 --causal --ranks 8..4096 --plots plots\n"
        "  mpirun -np 4 plait study --tokens 8K --heads 8:2 --ranks 1..64 --csv study.csv\n"
        "  mpirun -np 4 plait study --tokens-per-rank 2K --ranks 1,2,4 --strategies ring,passq --json -\n");
    return ExitCode::done;
  }
  StudyOptions const options = [&] {
    if (!launched_rank()) return parse_study(words);
    job = std::make_unique<Job>(WorldOptions{.timeout = timeout_of(words, study_flags())});
    return job->together("the flags", [&] { return parse_study(words); });
  }();
  Study study(options, job.get());
  study.run();
  TimelinePicture const timeline = options.plots ? study.timeline() : TimelinePicture{};
  auto const report = [&] {
    if (!job || job->speaks()) write_reports(options, words, study, timeline);
  };
  job ? job->together("the reports", report) : report();
  return ExitCode::done;
}

}  // namespace plait
