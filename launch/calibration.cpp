#include "calibration.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <iterator>
#include <set>

#include "calibration_fit.hpp"
#include "calibration_links.hpp"
#include "calibration_plans.hpp"
#include "calibration_sampling.hpp"
#include "plait/cpu_device.hpp"
#include "plait/cuda_device.hpp"
#include "plait/strategy.hpp"
#include "size.hpp"

namespace plait {
namespace {

/// How the time is shared out.
constexpr double folds_share = 0.4;
constexpr double merges_share = 0.05;
constexpr double crowd_share = 0.1;
constexpr double links_share = 0.3;
constexpr double host_share = 0.15;
constexpr double sample_seconds = 10e-3;
/// Of whole attentions, at both ends.
constexpr int first_passes = 2;
constexpr int first_runs = 4;
constexpr int last_passes = 1;
constexpr int last_runs = 4;

constexpr std::size_t kibi = 1024;
constexpr std::size_t mebi = kibi * kibi;

/// Blocks as plans have them: few queries and many, keys whole and in pieces; on a GPU, up to folds that keep
/// it busy, and two that wait for more keys than its caches hold. A CPU's keys fit its cache, and are there,
/// as they are in plans: they have just come, or were folded a round before.
std::vector<FoldCase> fold_cases(DeviceKind device) {
  if (device == DeviceKind::cuda) {
    return {{1, 65536, 32, 8},   {16, 65536, 8, 8},    {128, 1024, 1, 1},  {256, 4096, 8, 8},
            {1024, 1024, 8, 2},  {2048, 2048, 4, 4},   {4096, 4096, 8, 1}, {4096, 16384, 8, 2},
            {8192, 8192, 16, 4}, {16384, 4096, 16, 16}};
  }
  return {{16, 2048, 8, 8}, {32, 2048, 8, 8},  {64, 1024, 8, 8},  {64, 2048, 8, 8},   {128, 2048, 8, 4},
          {256, 256, 1, 1}, {256, 512, 8, 2},  {512, 64, 8, 2},   {512, 128, 8, 8},   {512, 512, 1, 1},
          {512, 512, 8, 2}, {1024, 128, 8, 2}, {2048, 256, 1, 1}, {1024, 1024, 2, 2}, {1024, 512, 8, 2}};
}

/// Measured whole, and cut by a causal mask: small blocks, of which the edge is a large part, and a long one.
std::vector<FoldCase> edge_cases(DeviceKind device) {
  if (device == DeviceKind::cuda) return {{2048, 2048, 16, 4}, {8192, 8192, 16, 4}};
  return {{96, 96, 8, 2}, {192, 192, 8, 2}, {512, 512, 4, 1}};
}

std::string describe(FoldCase const& fold) {
  return fmt::format("fold of {} rows, {} keys{}, {}:{} heads", fold.rows, fold.keys,
                     fold.causal ? ", causal" : "", fold.q_heads, fold.kv_heads);
}

/// A fold of some milliseconds, for exchanges to go on beside, and to see who shares cores with whom.
constexpr FoldCase long_fold{512, 512, 4, 4};

struct MergeCase {
  Index rows;
  Index heads;
};
std::vector<MergeCase> merge_cases(DeviceKind device) {
  if (device == DeviceKind::cuda) return {{128, 1}, {1024, 8}, {8192, 8}, {8192, 32}};
  return {{16, 1}, {128, 4}, {512, 8}, {2048, 8}};
}

struct ExchangeCase {
  int messages;
  std::size_t bytes;
};
std::vector<ExchangeCase> exchange_cases(DeviceKind device) {
  std::vector<ExchangeCase> cases = {{1, 0},          {8, 0},          {1, 16 * kibi}, {1, 128 * kibi},
                                     {4, 128 * kibi}, {1, 512 * kibi}, {1, 2 * mebi},  {1, 8 * mebi}};
  if (device == DeviceKind::cuda) cases.push_back({1, 64 * mebi});
  return cases;
}

/// A job's calibration under way: each step of it sets numbers of the machine and notes what it found.
class Calibrator {
 public:
  Calibrator(Job const& job, CalibrationOptions const& options, DeviceChoice const& choice,
             std::unique_ptr<Device> device, std::unique_ptr<Transport> transport, Topology const& topology)
      : job_(job),
        options_(options),
        choice_(choice),
        kind_(choice.kind),
        device_(std::move(device)),
        transport_(std::move(transport)),
        topology_(topology),
        sampler_(job, *transport_),
        plan_bench_(job, choice, options.run, options.elements) {
    Machine& machine = result_.machine;
    machine.name = options.name;
    machine.ranks_per_node = topology.ranks_per_host;
    if (kind_ == DeviceKind::cuda) {
      machine.units = cuda_devices().at(static_cast<std::size_t>(choice.cuda.index)).multiprocessors;
    }
  }

  Calibration run() {
    // Whole attentions first and, fewer, last: both ends together tell if the machine changed its speed.
    ends_.first = plan_bench_.times(first_passes, first_runs);
    measure_folds();
    measure_merges();
    measure_crowd();
    measure_links();
    measure_host();
    ends_.last = plan_bench_.times(last_passes, last_runs);
    fit_plans();
    compare_ends();
    result_.machine.sources = sources();
    validate(result_.machine);
    return std::move(result_);
  }

 private:
  void measure_folds();
  void measure_merges();
  void measure_crowd();
  void measure_links();
  void measure_level(std::string const& name, std::vector<Peers> const& patterns, double seconds, Link& link);
  void measure_buffer(std::string const& name, int peer, Link& link);
  void measure_port(double seconds);
  void measure_host();
  void fit_plans();
  void compare_ends();
  [[nodiscard]] std::string sources() const;
  template <class... Arguments>
  void note(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    result_.findings.push_back(fmt::format(format, std::forward<Arguments>(arguments)...));
  }
  void explain(std::string what, double measured, double fitted) {
    result_.measurements.push_back({std::move(what), measured, fitted});
  }
  [[nodiscard]] bool several_hosts() const { return topology_.hosts > 1; }
  [[nodiscard]] bool several_ranks_per_host() const { return topology_.ranks_per_host > 1; }

  Job const& job_;
  CalibrationOptions const& options_;
  DeviceChoice choice_;
  DeviceKind kind_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Transport> transport_;
  Topology topology_;
  Sampler sampler_;
  PlanBench plan_bench_;
  BothEnds ends_;
  Calibration result_;
  std::string levels_;  ///< which links were measured, in words
};

void Calibrator::measure_folds() {
  std::deque<FoldBench> folds;
  std::vector<Sample> samples;
  std::vector<FoldCase> cases = fold_cases(kind_);
  std::size_t const full = cases.size();
  for (FoldCase edge : edge_cases(kind_)) {
    cases.push_back(edge);
    edge.causal = true;
    cases.push_back(edge);
  }
  job_.together("preparing folds", [&] {
    for (FoldCase const& fold : cases) folds.emplace_back(*device_, fold, options_.elements);
  });
  for (FoldBench& fold : folds) {
    auto const warm = [&fold](int times) {
      (void)fold(1);
      return fold(times);
    };
    samples.push_back({warm, sample_seconds});
  }
  std::vector<double> const seconds = sampler_.means(samples, folds_share * options_.seconds);

  std::vector<TimedFold> timed;
  for (std::size_t i = 0; i < folds.size(); ++i) timed.push_back({folds[i].work(), seconds[i]});
  std::span<TimedFold const> const whole(timed.data(), full);
  std::vector<TimedEdge> edges;
  for (std::size_t i = full; i < timed.size(); i += 2) {
    edges.push_back({.cut = timed[i + 1], .whole = timed[i]});
  }
  Machine& machine = result_.machine;
  job_.together("the rates of folds", [&] { fit_folds(whole, machine); });
  note("folds: {:.1f} GFLOP/s, {:.2f} GB/s of rows, {:.2f} GB/s of keys and {} each; largest error {:.0f}%",
       machine.flops_per_second / 1e9, machine.memory_bytes_per_second / 1e9,
       machine.key_bytes_per_second / 1e9, format_seconds(machine.fold_seconds),
       100 * worst_error(whole, machine));
  fit_edges(edges, machine);
  std::vector<TimedFold> causal;
  for (TimedEdge const& edge : edges) causal.push_back(edge.cut);
  note("a row at a mask's sloped edge costs {:.0f} keys more; largest error of causal blocks {:.0f}%",
       machine.edge_keys, 100 * worst_error(causal, machine));
  for (std::size_t i = 0; i < timed.size(); ++i) {
    explain(describe(cases[i]), timed[i].seconds, plait::seconds(timed[i].work, machine));
  }
}

void Calibrator::measure_merges() {
  std::deque<MergeBench> merges;
  std::vector<Sample> samples;
  job_.together("preparing merges", [&] {
    for (auto const& [rows, heads] : merge_cases(kind_)) {
      merges.emplace_back(*device_, rows, heads, options_.elements);
    }
  });
  for (MergeBench& merge : merges) samples.push_back({std::ref(merge), sample_seconds});
  std::vector<double> const seconds = sampler_.means(samples, merges_share * options_.seconds);
  std::vector<TimedMerge> timed;
  for (std::size_t i = 0; i < merges.size(); ++i) timed.push_back({merges[i].bytes(), seconds[i]});
  Machine& machine = result_.machine;
  fit_merges(timed, machine);
  note("merges: {:.2f} GB/s and {} each; largest error {:.0f}%", machine.merge_bytes_per_second / 1e9,
       format_seconds(machine.step_seconds), 100 * worst_error(timed, machine));
  for (TimedMerge const& merge : timed) {
    explain(fmt::format("merge of {:.3g} bytes", merge.bytes), merge.seconds,
            merge_seconds(merge.bytes, machine));
  }
}

/// Who shares cores with whom: rank 0 folds alone, then with its host's ranks, then with all. For so long at
/// a time that ranks that take turns on cores had many turns each: of four on two cores, two end first, and a
/// mean of short times tells that they had more than their half.
void Calibrator::measure_crowd() {
  constexpr double as_fast = 1.15;
  constexpr double many_turns = 50e-3;
  int const all = job_.world().size();
  int const host = topology_.ranks_per_host;
  if (kind_ == DeviceKind::cuda || all == 1) return;
  FoldBench fold =
      job_.together("preparing a fold", [&] { return FoldBench(*device_, long_fold, options_.elements); });
  std::set<int> const crowds = {1, host, all};
  std::vector<Sample> samples;
  for (int const ranks : crowds) {
    bool const folds = job_.world().rank() < ranks;
    samples.push_back({[&fold, folds](int times) { return folds ? fold(times) : 0.0; }, many_turns});
  }
  std::vector<double> const means = sampler_.first_means(samples, crowd_share * options_.seconds);
  auto const seconds_with = [&](int ranks) {
    return means[static_cast<std::size_t>(std::distance(crowds.begin(), crowds.find(ranks)))];
  };
  // Namespaces and containers have one kernel; virtual machines of one machine are told by their times.
  bool const one_machine = !several_hosts() || same_kernel(job_.gather(kernel_name(), "the hosts' kernels"));
  bool const all_share = one_machine || seconds_with(all) > as_fast * seconds_with(host);
  Machine& machine = result_.machine;
  machine.crowd_ranks = all_share ? all : host;
  machine.alone_speedup =
      std::clamp(seconds_with(machine.crowd_ranks) / seconds_with(1), 1.0, double(machine.crowd_ranks));
  note("a rank that folds alone is {:.2f} times as fast as {} that fold at once", machine.alone_speedup,
       machine.crowd_ranks);
}

void Calibrator::measure_level(std::string const& name, std::vector<Peers> const& patterns, double seconds,
                               Link& link) {
  std::deque<ExchangeBench> benches;
  std::vector<ExchangeCase> cases;
  std::vector<Sample> samples;
  job_.together("preparing exchanges", [&] {
    for (Peers const& peers : patterns) {
      for (ExchangeCase const& exchange : exchange_cases(kind_)) {
        benches.emplace_back(*device_, *transport_, peers, exchange.messages, exchange.bytes);
        cases.push_back(exchange);
      }
    }
  });
  for (ExchangeBench& bench : benches) samples.push_back({std::ref(bench), sample_seconds});
  std::vector<double> const means = sampler_.means(samples, seconds);
  std::vector<TimedExchange> exchanges;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    exchanges.push_back(
        {static_cast<double>(cases[i].messages), static_cast<double>(cases[i].bytes), means[i]});
  }
  link = fit_link(exchanges);
  note("{}: {:.1f} MB/s, {} each message, {} latency; largest error {:.0f}%", name,
       link.bytes_per_second / 1e6, format_seconds(link.message_seconds),
       format_seconds(link.latency_seconds), 100 * worst_error(exchanges, link));
  for (TimedExchange const& exchange : exchanges) {
    explain(fmt::format("exchange of {} x {} bytes", exchange.messages, exchange.bytes), exchange.seconds,
            seconds_of(exchange, link));
  }
}

/// What rank 0 may send ahead of a rank that comes later. Not explained: what a sender's own part of it takes
/// is among what bytes cost the cores, measured with the host.
void Calibrator::measure_buffer(std::string const& name, int peer, Link& link) {
  if (kind_ == DeviceKind::cuda) return;
  constexpr double late_seconds = 20e-3;
  constexpr std::array sizes = {16 * kibi, 128 * kibi, 512 * kibi, 2 * mebi, 4 * mebi, 8 * mebi};
  std::deque<ExchangeBench> benches;
  std::vector<Sample> samples;
  job_.together("preparing messages", [&] {
    for (std::size_t const bytes : sizes) {
      benches.emplace_back(*device_, *transport_, one_way(job_.world().rank(), peer), 1, bytes);
    }
  });
  for (ExchangeBench& bench : benches) {
    samples.push_back({[&bench](int) { return bench.with_late_receiver(late_seconds); }, 0.0});
  }
  std::vector<double> const means = sampler_.first_means(samples, 0.0);
  std::vector<TimedSend> sends;
  for (std::size_t i = 0; i < sizes.size(); ++i) sends.push_back({static_cast<double>(sizes[i]), means[i]});
  link.buffer_bytes = fit_buffer(sends, late_seconds, link);
  note("{}: a sender goes on with up to {} under way", name,
       format_bytes(static_cast<std::uint64_t>(link.buffer_bytes)));
}

void Calibrator::measure_links() {
  int const rank = job_.world().rank();
  Machine& machine = result_.machine;
  double seconds = links_share * options_.seconds;
  if (several_hosts() && several_ranks_per_host()) seconds /= 3;  // node, network, port
  // To the neighbour, as in a ring, and half-way round.
  if (several_ranks_per_host()) {
    std::vector<Peers> patterns;
    for (int const k : std::set<int>{1, topology_.ranks_per_host / 2}) {
      patterns.push_back(within_host(topology_, rank, k));
    }
    measure_level("within a host", patterns, seconds, machine.node);
    measure_buffer("within a host", 1, machine.node);
  }
  if (several_hosts()) {
    std::vector<Peers> patterns;
    for (int const k : std::set<int>{1, topology_.hosts / 2}) {
      patterns.push_back(between_hosts(topology_, rank, k, Senders::one_per_host));
    }
    measure_level("between hosts", patterns, seconds, machine.network);
    measure_buffer("between hosts", topology_.ranks_per_host, machine.network);
  }
  if (several_hosts() && several_ranks_per_host()) {
    measure_port(seconds);
    levels_ = "links within and between hosts measured";
  } else if (several_hosts()) {
    machine.node = machine.network;
    levels_ = "links between hosts measured, those within a host taken to be the same (one rank per host)";
  } else if (several_ranks_per_host()) {
    machine.network = machine.node;
    levels_ = "links within the host measured, those between hosts taken to be the same (one host)";
  } else {
    levels_ = "links not measured (one rank): Plait's defaults";
  }
}

void Calibrator::measure_port(double seconds) {
  constexpr int messages = 1;
  constexpr std::size_t bytes = 2 * mebi;
  Peers const peers = between_hosts(topology_, job_.world().rank(), 1, Senders::all);
  ExchangeBench bench = job_.together(
      "preparing exchanges", [&] { return ExchangeBench(*device_, *transport_, peers, messages, bytes); });
  double const once = sampler_.means({{std::ref(bench), sample_seconds}}, seconds).front();
  Machine& machine = result_.machine;
  double const on_port = std::max(once - machine.network.latency_seconds, once / 2);
  machine.port_bytes_per_second = static_cast<double>(bytes) * topology_.ranks_per_host / on_port;
  note("a host's port: {:.1f} MB/s for {} ranks", machine.port_bytes_per_second / 1e6,
       topology_.ranks_per_host);
}

void Calibrator::measure_host() {
  // A GPU's folds do not run on the cores that move bytes.
  if (kind_ == DeviceKind::cuda || job_.world().size() == 1) return;
  Machine& machine = result_.machine;
  double rate = several_hosts() ? machine.network.bytes_per_second : machine.node.bytes_per_second;
  if (machine.port_bytes_per_second > 0) {
    rate = std::min(rate, machine.port_bytes_per_second / topology_.ranks_per_host);
  }
  int const rank = job_.world().rank();
  Peers const peers =
      several_hosts() ? between_hosts(topology_, rank, 1, Senders::all) : within_host(topology_, rank, 1);
  std::optional<FoldBench> fold;
  job_.together("preparing a fold", [&] { fold.emplace(*device_, long_fold, options_.elements); });
  // Exchanges that end before the fold: what a round then takes longer is what they cost it. And one that
  // takes longer.
  double const alone = seconds(fold->work(), machine);
  std::deque<ExchangeBench> benches;
  std::vector<double> moved;
  job_.together("preparing exchanges", [&] {
    for (double const share : {0.0, 0.25, 0.5, 2.0}) {
      double const bytes = std::clamp(share * alone * rate, 1e3, 64e6);
      benches.emplace_back(*device_, *transport_, peers, 1, static_cast<std::size_t>(bytes));
      moved.push_back(2 * bytes);  // sent and received
    }
  });
  std::vector<Sample> samples = {{std::ref(*fold), sample_seconds}};
  for (ExchangeBench& bench : benches) {
    samples.push_back({[&](int times) { return bench.while_folding(*fold, times); }, sample_seconds});
  }
  std::vector<double> const means = sampler_.means(samples, host_share * options_.seconds);
  std::vector<TimedRound> rounds;
  for (std::size_t i = 0; i + 1 < moved.size(); ++i) rounds.push_back({moved[i], means[i + 1] - means[0]});
  fit_rounds(rounds, machine);
  machine.round_share = machine.round_seconds / means[0];
  auto const computing = [&](double bytes) {
    return means[0] + machine.round_seconds + bytes * machine.host_seconds_per_byte;
  };
  double const on_link =
      machine.network.latency_seconds + machine.network.message_seconds + moved.back() / 2 / rate;
  double const slower = (means.back() - on_link) / computing(moved.back());
  machine.link_share_computing = std::clamp(1.0 - slower, 0.1, 1.0);
  for (std::size_t i = 0; i < moved.size(); ++i) {
    bool const long_one = i + 1 == moved.size();
    double const fitted =
        long_one ? on_link + computing(moved[i]) * (1.0 - machine.link_share_computing) : computing(moved[i]);
    explain(fmt::format("fold while {:.3g} bytes move", moved[i]), means[i + 1], fitted);
  }
  note(
      "a round with a fold takes {} longer if anything moves meanwhile, and {:.2f} ns for each byte; links "
      "have {:.0f}% of "
      "their speed meanwhile",
      format_seconds(machine.round_seconds), 1e9 * machine.host_seconds_per_byte,
      100 * machine.link_share_computing);
}

/// In whole attentions folds find their operands cold, ranks wait for each other's threads, and links are
/// idle for a while and then busy. What is measured piece by piece misses that; so what ranks compute, and
/// what links move, is made slower, or faster, all alike, until plans take what they took.
void Calibrator::fit_plans() {
  std::span<Plan const> const plans = plan_bench_.plans();
  if (plans.empty()) return;
  std::vector<double> const steady = undisturbed(ends_);
  std::vector<TimedPlan> timed;
  for (std::size_t i = 0; i < plans.size(); ++i) timed.push_back({&plans[i], steady[i]});
  Machine& machine = result_.machine;
  Speeds const speeds = fit_speeds(timed, machine);
  machine = with_speeds(machine, speeds);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    double const fitted = simulate(plans[i], machine, Record::nothing).seconds;
    explain(describe(plans[i]), ends_.first[i], fitted);
    explain("the same at the end", ends_.last[i], fitted);
  }
  note(
      "whole attentions compute {:.2f} times as fast as their pieces did, and move bytes {:.2f} times as "
      "fast, {:.2f} times that where nothing is computed meanwhile",
      speeds.computing, speeds.moving, speeds.exposed);
}

void Calibrator::compare_ends() {
  if (plan_bench_.plans().empty()) return;
  note("{}", describe(ends_));
  if (of_one_speed(ends_)) return;
  result_.warning = fmt::format(
      "the machine changed speed while it was calibrated: {}; repeat when it is quiet", describe(ends_));
}

std::string Calibrator::sources() const {
  std::set<std::string> hosts;
  for (Place const& place : job_.world().places()) hosts.insert(place.host);
  constexpr std::size_t most_named = 4;
  std::string const where = hosts.size() <= most_named ? fmt::format("{}", fmt::join(hosts, ", "))
                                                       : fmt::format("{} and others", *hosts.begin());
  return fmt::format(
      "measured by plait calibrate on {:%F %R} UTC: {} ranks on {} host{} ({}), {}, {}, head dimensions {} "
      "and {}, transport {}; {}{}",
      fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())),
      job_.world().size(), topology_.hosts, topology_.hosts == 1 ? "" : "s", where, device_->describe(),
      name(options_.elements.dtype), options_.elements.head_dim, options_.elements.value_dim,
      transport_->describe(), levels_, plan_bench_.plans().empty() ? "" : "; " + describe(ends_));
}

}  // namespace

Calibration calibrate(Job const& job, CalibrationOptions const& options) {
  Topology const found = job.together("the hosts", [&] { return topology(job.world().places()); });
  DeviceChoice const choice = choose_device(job, options.run.device, options.run.share_gpu);
  bool const on_gpu = choice.kind == DeviceKind::cuda;
  int const threads = threads_per_rank(job.world(), options.run.threads);
  auto device = job.together("the device", [&] {
    return on_gpu ? make_cuda_device(choice.cuda) : make_cpu_device({.threads = threads});
  });
  DeviceQueue const queue{
      .stream = device->stream(),
      .gpu = on_gpu ? cuda_devices().at(static_cast<std::size_t>(choice.cuda.index)).pci : ""};
  auto transport = job.together(
      "the transport", [&] { return make_transport(job.world(), options.run.transport, queue).transport; });
  return Calibrator(job, options, choice, std::move(device), std::move(transport), found).run();
}

}  // namespace plait
