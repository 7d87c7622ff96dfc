// plait attend: one exact attention over tensors in a file.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "attend_flags.hpp"
#include "check.hpp"
#include "device_choice.hpp"
#include "local_tensors.hpp"
#include "problem_flags.hpp"
#include "report.hpp"
#include "size.hpp"
#include "subcommand.hpp"
#include "trace.hpp"

namespace plait {
namespace {

/// Numbers of one rank and run that travel to rank 0.
struct RunNumbers {
  double seconds = 0.0;
  double compute_seconds = 0.0;
  double exposed_comm_seconds = 0.0;
  std::uint64_t sent = 0;
};

/// All runs, seen from rank 0.
struct Measurement {
  std::vector<double> seconds;        ///< per run, of the slowest rank; ascending
  double exposed_comm_seconds = 0.0;  ///< of the rank that waited most, in the last run
  std::vector<RunNumbers> ranks;      ///< of the last run
  Timeline timeline;                  ///< of the last run, all ranks
  [[nodiscard]] double median() const {
    std::size_t const half = seconds.size() / 2;
    return seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  }
};

/// A line on the terminal that is rewritten, once a run is long enough to wonder about.
class Progress {
 public:
  explicit Progress(bool wanted) : shown_(wanted && isatty(STDERR_FILENO) != 0) {}
  ~Progress() { erase(); }
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  void operator()(std::size_t done, std::size_t all) {
    constexpr double patience_seconds = 2.0;
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (!shown_ || seconds < patience_seconds) return;
    fmt::print(stderr, "\rround {} of {}, {:.0f} s", done, all, seconds);
    std::fflush(stderr);
    written_ = true;
  }
  void erase() {
    if (std::exchange(written_, false)) fmt::print(stderr, "\r\033[K");
  }

 private:
  bool shown_;
  bool written_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Measurement measure(Job const& job, Attention& attention, RankTensors& tensors,
                    AttendOptions const& options) {
  Measurement result;
  for (int run = 0; run < options.run.repeat; ++run) {
    RunReport const report = attention.run(tensors.views());
    RunNumbers mine{report.seconds, report.compute_seconds, report.exposed_comm_seconds, 0};
    for (std::uint64_t const bytes : report.sent) mine.sent += bytes;
    result.ranks = job.gather(mine, "the times of the run");
    result.seconds.push_back(std::ranges::max_element(result.ranks, {}, &RunNumbers::seconds)->seconds);
    if (options.trace && run + 1 == options.run.repeat) {
      result.timeline = job.gather_list<Event>(report.timeline, "the timeline");
    }
  }
  std::ranges::sort(result.seconds);
  result.exposed_comm_seconds =
      std::ranges::max_element(result.ranks, {}, &RunNumbers::exposed_comm_seconds)->exposed_comm_seconds;
  return result;
}

std::vector<std::string> gather_texts(World const& world, std::string const& mine) {
  std::vector<std::string> texts;
  for (auto const& bytes : world.all_gather(std::as_bytes(std::span(mine)), "the ranks' devices")) {
    texts.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  }
  return texts;
}

/// `devices` of all ranks, in rank order.
std::string rank_table(World const& world, std::vector<std::string> const& devices) {
  std::vector<std::vector<std::string>> rows = {{"rank", "host", "pid", "node", "local rank", "device"}};
  for (Place const& place : world.places()) {
    rows.push_back({std::to_string(place.rank), place.host, std::to_string(place.pid),
                    std::to_string(place.node), std::to_string(place.local_rank),
                    devices[static_cast<std::size_t>(place.rank)]});
  }
  return format_table(rows);
}

std::string measurement_in_words(Measurement const& measured, Volume const& planned, double flops) {
  std::vector<std::vector<std::string>> rows = {
      {"rank", "time", "computing", "waiting", "bytes planned", "bytes moved"}};
  for (std::size_t rank = 0; rank < measured.ranks.size(); ++rank) {
    RunNumbers const& numbers = measured.ranks[rank];
    rows.push_back({std::to_string(rank), format_seconds(numbers.seconds),
                    format_seconds(numbers.compute_seconds), format_seconds(numbers.exposed_comm_seconds),
                    std::to_string(planned.sent[rank]), std::to_string(numbers.sent)});
  }
  std::string const spread =
      measured.seconds.size() == 1
          ? ""
          : fmt::format(" (median of {}; {} to {})", measured.seconds.size(),
                        format_seconds(measured.seconds.front()), format_seconds(measured.seconds.back()));
  return fmt::format("{}\nTime: {}{}, {:.4f} TFLOP/s; exposed communication {}\n", format_table(rows),
                     format_seconds(measured.median()), spread, flops / measured.median() / 1e12,
                     format_seconds(measured.exposed_comm_seconds));
}

std::string check_in_words(CheckResult const& check, Index q_tokens) {
  return fmt::format(
      "Check: {} of {} rows against the fp64 oracle: {}\n"
      "  out: largest error {:.3e}, tolerance {:.3e}; {}\n"
      "  lse: largest error {:.3e}, tolerance {:.3e}; {}\n",
      check.rows, q_tokens, check.passed() ? "passed" : "FAILED", check.out.max_abs_error,
      check.out_tolerance.value(), describe(check.out), check.lse.max_abs_error, check.lse_tolerance.value(),
      describe(check.lse));
}

/// JSON has no infinity: an error that is none of the numbers becomes null.
Json finite_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json check_json(CheckResult const& check) {
  return {{"rows", check.rows},
          {"max_abs_error", finite_or_null(check.out.max_abs_error)},
          {"tolerance", finite_or_null(check.out_tolerance.value())},
          {"lse_max_abs_error", finite_or_null(check.lse.max_abs_error)},
          {"lse_tolerance", finite_or_null(check.lse_tolerance.value())},
          {"passed", check.passed()}};
}

Json attend_json(Attention const& attention, std::string const& layout, Measurement const& measured,
                 Volume const& planned) {
  Plan const& plan = attention.plan();
  std::vector<std::uint64_t> moved;
  std::vector<double> compute_seconds;
  for (RunNumbers const& rank : measured.ranks) {
    moved.push_back(rank.sent);
    compute_seconds.push_back(rank.compute_seconds);
  }
  return {
      {"strategy", plan.strategy},
      {"layout", layout},
      {"device", attention.device().describe()},
      {"kernels", attention.kernels()},
      {"transport", attention.transport()},
      {"ranks", plan.ranks()},
      {"shape", shape_json(plan.problem.shape)},
      {"seconds",
       {{"min", measured.seconds.front()}, {"median", measured.median()}, {"max", measured.seconds.back()}}},
      {"tflops", plan.problem.flops() / measured.median() / 1e12},
      {"compute_seconds", compute_seconds},
      {"exposed_comm_seconds", measured.exposed_comm_seconds},
      {"bytes", {{"planned", planned.sent}, {"moved", moved}}},
      {"slots_bytes", *std::ranges::max_element(planned.slots)}};
}

std::vector<std::string> rank_names(World const& world) {
  std::vector<std::string> names;
  for (Place const& place : world.places())
    names.push_back(fmt::format("rank {} ({})", place.rank, place.host));
  return names;
}

ExitCode run(Job const& job, AttendOptions const& options) {
  World const& world = job.world();
  auto const say = [&, people = options.json == "-" ? stderr : stdout](std::string const& text) {
    if (!job.speaks()) return;
    fmt::print(people, "{}", text);
    std::fflush(people);
  };
  int const threads = threads_per_rank(world, options.run.threads);
  omp_set_num_threads(threads);  // of the oracle, too
  TensorReader const input = job.together("opening the input", [&] { return TensorReader(options.input); });
  Choice choice = job.together("the plan", [&] {
    Problem const problem = parse_problem(options.line, read_shape(input));
    if (options.output) require_writable(*options.output, problem.shape);
    return choose_plan(problem, world.size(), options.strategy, options.layout, options.machine,
                       options.reduce);
  });
  Volume const planned = volume(choice.plan);
  Plan const& plan = choice.plan;
  RankTensors tensors =
      job.together("reading the input", [&] { return RankTensors(input, plan, world.rank()); });
  Progress progress(job.speaks());
  DeviceChoice const device = choose_device(job, options.run.device, options.run.share_gpu);
  Attention attention = job.together("the agreement on the plan", [&] {
    return Attention(world, plan,
                     {.device = device.kind,
                      .cpu = {.threads = threads},
                      .cuda = device.cuda,
                      .transport = options.run.transport,
                      .record = options.trace ? Record::timeline : Record::nothing,
                      .progress = [&](std::size_t done, std::size_t all) { progress(done, all); }});
  });
  job.together("copying the input to the device", [&] { tensors.place(attention.device()); });
  say(fmt::format("{}\nDevice: {} ({}); kernels: {}\nTransport: {} ({})\nProblem: {}\n{}",
                  rank_table(world, gather_texts(world, attention.device().describe())),
                  device.kind == DeviceKind::cuda ? "cuda" : "cpu", device.why,
                  fmt::join(attention.kernels(), "; "), attention.transport(), attention.transport_reason(),
                  describe(plan.problem), describe(choice, planned)));

  Measurement const measured = measure(job, attention, tensors, options);
  progress.erase();
  say(fmt::format("\n{}", measurement_in_words(measured, planned, plan.problem.flops())));
  tensors.fetch();
  Json report = attend_json(attention, choice.layout, measured, planned);
  if (options.output) {
    tensors.write(job, *options.output);
    say(fmt::format("Output: {}\n", *options.output));
  }
  ExitCode code = ExitCode::done;
  if (options.checks) {
    Index const rows = options.check_rows.value_or(affordable_rows(plan.problem.shape, world.size()));
    CheckResult const verdict = check(job, plan, input, {tensors.q(), tensors.out(), tensors.lse()},
                                      sample_rows(plan.problem.shape.q_tokens, rows));
    report["check"] = check_json(verdict);
    say(check_in_words(verdict, plan.problem.shape.q_tokens));
    if (!verdict.passed()) code = ExitCode::check_failed;
  }
  job.together("the reports", [&] {
    if (!job.speaks()) return;
    if (options.trace) write_file(*options.trace, trace_json(measured.timeline, plan, rank_names(world)));
    if (options.json) write_json(*options.json, report);
  });
  return code;
}

}  // namespace

ExitCode attend(Words const& words, std::unique_ptr<Job>& job) {
  if (asks_for_help(words)) {
    print_help(
        "[mpirun -np P] plait attend --input FILE [FLAGS]", attend_flags(),
        "  plait attend --input input.safetensors --causal --check\n"
        "  mpirun -np 4 plait attend --input input.safetensors --causal --output out.safetensors --check\n"
        "  mpirun -np 4 plait attend --input input.safetensors --strategy ring --layout zigzag \\\n"
        "    --window 1K,0 --json report.json --trace trace.json\n");
    return ExitCode::done;
  }
  job = std::make_unique<Job>(WorldOptions{.timeout = timeout_of(words, attend_flags())});
  return run(*job, job->together("the flags", [&] { return parse_attend(words); }));
}

}  // namespace plait
