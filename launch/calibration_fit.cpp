#include "calibration_fit.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>
#include <stdexcept>

namespace plait {
namespace {

constexpr std::size_t most_unknowns = 8;
constexpr double boundless = 1e15;

using Row = std::vector<double>;

/// Solves a · x = b by Gauss's elimination with pivots; nothing if `a` is singular to working precision.
std::optional<Row> solve(std::vector<Row> a, Row b) {
  constexpr double negligible = 1e-12;
  std::size_t const n = b.size();
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t row = column + 1; row < n; ++row) {
      if (std::abs(a[row][column]) > std::abs(a[pivot][column])) pivot = row;
    }
    if (std::abs(a[pivot][column]) < negligible) return std::nullopt;
    std::swap(a[column], a[pivot]);
    std::swap(b[column], b[pivot]);
    for (std::size_t row = column + 1; row < n; ++row) {
      double const factor = a[row][column] / a[column][column];
      for (std::size_t i = column; i < n; ++i) a[row][i] -= factor * a[column][i];
      b[row] -= factor * b[column];
    }
  }
  for (std::size_t row = n; row-- > 0;) {
    for (std::size_t i = row + 1; i < n; ++i) b[row] -= a[row][i] * b[i];
    b[row] /= a[row][row];
  }
  return b;
}

/// What an error of a time counts: most of a plan's time is long folds and long exchanges, but something must
/// tell the constants too.
double weight_of(double seconds, double longest) {
  return std::sqrt(seconds / longest);
}

double inverse(double seconds_per_unit) {
  return seconds_per_unit > 1.0 / boundless ? 1.0 / seconds_per_unit : boundless;
}

/// Least squares in which some unknowns are 0.
class SubsetFit {
 public:
  /// @param scales   what each observation's factors are divided by
  /// @param targets  what each should then give
  SubsetFit(std::span<Observation const> observations, Row const& scales, Row targets)
      : unknowns_(observations.front().factors.size()), norms_(unknowns_), targets_(std::move(targets)) {
    for (std::size_t index = 0; index < observations.size(); ++index) {
      Row row = observations[index].factors;
      double const weight = std::sqrt(observations[index].weight);
      for (double& factor : row) factor *= weight / scales[index];
      targets_[index] *= weight;
      for (std::size_t i = 0; i < unknowns_; ++i) norms_[i] += row[i] * row[i];
      rows_.push_back(std::move(row));
    }
    for (double& norm : norms_) norm = norm > 0 ? std::sqrt(norm) : 1.0;
    for (Row& row : rows_) {
      for (std::size_t i = 0; i < unknowns_; ++i) row[i] /= norms_[i];
    }
  }

  /// Over the sets of unknowns whose least squares have none below 0, the best.
  [[nodiscard]] Row best() const {
    // Fewest unknowns first: one more must be worth it, or rounding decides between equals.
    constexpr double worth_it = 1e-12;
    Row best(unknowns_);
    double least = squares(best);
    for (std::size_t set = 1; set < (std::size_t{1} << unknowns_); ++set) {
      std::optional<Row> const x = least_squares(set);
      if (!x || std::ranges::any_of(*x, [](double value) { return value < 0; })) continue;
      double const found = squares(*x);
      if (found >= least - worth_it) continue;
      least = found;
      best = *x;
    }
    for (std::size_t i = 0; i < unknowns_; ++i) best[i] /= norms_[i];
    return best;
  }

 private:
  [[nodiscard]] std::optional<Row> least_squares(std::size_t set) const {
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < unknowns_; ++i) {
      if ((set >> i & 1u) != 0) members.push_back(i);
    }
    std::vector<Row> normal(members.size(), Row(members.size()));
    Row right(members.size());
    for (std::size_t index = 0; index < rows_.size(); ++index) {
      Row const& row = rows_[index];
      for (std::size_t i = 0; i < members.size(); ++i) {
        right[i] += row[members[i]] * targets_[index];
        for (std::size_t j = 0; j < members.size(); ++j) normal[i][j] += row[members[i]] * row[members[j]];
      }
    }
    std::optional<Row> const part = solve(std::move(normal), std::move(right));
    if (!part) return std::nullopt;
    Row x(unknowns_);
    for (std::size_t i = 0; i < members.size(); ++i) x[members[i]] = (*part)[i];
    return x;
  }
  /// Of the scaled unknowns.
  [[nodiscard]] double squares(Row const& x) const {
    double sum = 0.0;
    for (std::size_t index = 0; index < rows_.size(); ++index) {
      double const error = std::inner_product(x.begin(), x.end(), rows_[index].begin(), -targets_[index]);
      sum += error * error;
    }
    return sum;
  }

  std::size_t unknowns_;
  Row norms_;  ///< of the columns, which are divided by them
  std::vector<Row> rows_;
  Row targets_;
};

/// As fit_non_negative, but where the larger of two terms counts instead of their sum. Which one that is
/// depends on the ratio of their factors alone: each ratio is tried for where it changes, and the best kept.
Row fit_larger(std::span<Observation const> sums, std::size_t one, std::size_t other) {
  auto const squares = [&](Row const& x) {
    double sum = 0.0;
    for (auto const& [factors, seconds, weight] : sums) {
      double const all = std::inner_product(x.begin(), x.end(), factors.begin(), 0.0);
      double const smaller = std::min(factors[one] * x[one], factors[other] * x[other]);
      double const error = std::log(std::max(all - smaller, seconds / boundless) / seconds);
      sum += weight * error * error;
    }
    return sum;
  };
  std::vector<Observation> sorted(sums.begin(), sums.end());
  std::ranges::sort(sorted, {}, [&](Observation const& of) { return of.factors[other] / of.factors[one]; });
  Row best;
  for (std::size_t change = 0; change <= sorted.size(); ++change) {
    std::vector<Observation> larger = sorted;
    for (std::size_t i = 0; i < larger.size(); ++i) larger[i].factors[i < change ? other : one] = 0.0;
    Row x = fit_non_negative(larger);
    if (best.empty() || squares(x) < squares(best)) best = std::move(x);
  }
  return best;
}

}  // namespace

std::vector<double> fit_non_negative(std::span<Observation const> observations) {
  if (observations.empty()) throw std::invalid_argument("a fit needs observations");
  std::size_t const unknowns = observations.front().factors.size();
  for (Observation const& observation : observations) {
    bool const fits = observation.factors.size() == unknowns && observation.seconds > 0;
    if (!fits || unknowns > most_unknowns) throw std::invalid_argument("observations that do not fit");
  }
  // The least squares relative to the measured times, where an error can be far above 1 but not below -1, are
  // too low for what no line fits. From there, Gauss and Newton's steps to the least squares of the
  // logarithm: log(p / seconds) is nearly log(p0 / seconds) + p / p0 - 1.
  constexpr int steps = 30;
  Row scales;
  for (Observation const& observation : observations) scales.push_back(observation.seconds);
  Row x = SubsetFit(observations, scales, Row(scales.size(), 1.0)).best();
  for (int step = 0; step < steps; ++step) {
    constexpr double far = 5.0;  // no step goes farther, in proportion
    Row targets;
    for (std::size_t i = 0; i < scales.size(); ++i) {
      auto const& [factors, seconds, weight] = observations[i];
      double const predicted = std::inner_product(x.begin(), x.end(), factors.begin(), 0.0);
      scales[i] = std::max(predicted, seconds / far);
      targets.push_back(std::clamp(1.0 - std::log(scales[i] / seconds), 1 / far, far));
    }
    x = SubsetFit(observations, scales, std::move(targets)).best();
  }
  return x;
}

void fit_folds(std::span<TimedFold const> folds, Machine& machine) {
  double longest = 0.0;
  for (TimedFold const& fold : folds) longest = std::max(longest, fold.seconds);
  std::vector<Observation> sums;
  for (TimedFold const& fold : folds) {
    double const flops = fold.work.flops / busy_share(fold.work, machine);
    sums.push_back({{1.0, flops, fold.work.row_bytes, fold.work.key_bytes},
                    fold.seconds,
                    weight_of(fold.seconds, longest)});
  }
  std::vector<double> const x = machine.units == 1 ? fit_non_negative(sums) : fit_larger(sums, 1, 3);
  if (x[1] <= 0) throw std::invalid_argument("the folds' times do not grow with their flops");
  machine.fold_seconds = x[0];
  machine.flops_per_second = 1.0 / x[1];
  machine.memory_bytes_per_second = inverse(x[2]);
  machine.key_bytes_per_second = inverse(x[3]);
}

void fit_merges(std::span<TimedMerge const> merges, Machine& machine) {
  double longest = 0.0;
  for (TimedMerge const& merge : merges) longest = std::max(longest, merge.seconds);
  std::vector<Observation> observations;
  for (TimedMerge const& merge : merges) {
    observations.push_back({{1.0, merge.bytes}, merge.seconds, weight_of(merge.seconds, longest)});
  }
  std::vector<double> const x = fit_non_negative(observations);
  machine.step_seconds = x[0];
  machine.merge_bytes_per_second = inverse(x[1]);
}

void fit_edges(std::span<TimedEdge const> edges, Machine& machine) {
  machine.edge_keys = 0.0;
  double products = 0.0;
  double squares = 0.0;
  for (auto const& [cut, whole] : edges) {
    double const missed = whole.seconds / seconds(whole.work, machine);
    double const one_key =
        missed * cut.work.edge_flops / (machine.flops_per_second * busy_share(cut.work, machine));
    double const rest = cut.seconds - missed * seconds(cut.work, machine);
    products += one_key * rest / (cut.seconds * cut.seconds);
    squares += one_key * one_key / (cut.seconds * cut.seconds);
  }
  if (squares > 0) machine.edge_keys = std::max(0.0, products / squares);
}

void fit_rounds(std::span<TimedRound const> rounds, Machine& machine) {
  auto const count = static_cast<double>(rounds.size());
  double bytes = 0.0;
  double more = 0.0;
  double squares = 0.0;
  double products = 0.0;
  for (TimedRound const& round : rounds) {
    bytes += round.bytes / count;
    more += round.more_seconds / count;
    squares += round.bytes * round.bytes / count;
    products += round.bytes * round.more_seconds / count;
  }
  double const spread = squares - bytes * bytes;
  double const slope = spread > 0 ? std::max(0.0, (products - bytes * more) / spread) : 0.0;
  bool const through_zero = more < slope * bytes;
  machine.round_seconds = through_zero ? 0.0 : more - slope * bytes;
  machine.host_seconds_per_byte = through_zero && squares > 0 ? std::max(0.0, products / squares) : slope;
}

Machine with_speeds(Machine machine, Speeds speeds) {
  for (double* const rate : {&machine.flops_per_second, &machine.memory_bytes_per_second,
                             &machine.key_bytes_per_second, &machine.merge_bytes_per_second}) {
    *rate = std::min(*rate * speeds.computing, boundless);
  }
  for (double* const seconds : {&machine.fold_seconds, &machine.step_seconds, &machine.round_seconds,
                                &machine.host_seconds_per_byte}) {
    *seconds /= speeds.computing;
  }
  for (Link* const link : {&machine.node, &machine.network}) {
    link->bytes_per_second = std::min(link->bytes_per_second * speeds.moving, boundless);
    link->latency_seconds /= speeds.moving;
    link->message_seconds /= speeds.moving;
  }
  machine.port_bytes_per_second *= speeds.moving;
  machine.link_share_exposed = std::min(machine.link_share_exposed * speeds.exposed, 1.0);
  return machine;
}

Speeds fit_speeds(std::span<TimedPlan const> plans, Machine const& machine) {
  // Whichever is longer of what ranks compute and what links move makes a plan's time, so slopes jump: a grid
  // is laid about the best point so far, finer and finer. A point is the speeds' logarithms.
  using Point = std::array<double, 3>;
  constexpr Point highest = {std::numbers::ln2, std::numbers::ln2, 0.0};
  constexpr double lowest = -std::numbers::ln2;
  constexpr int levels = 8;
  // A plan's time is off by 5% or so, the pieces' speeds by 20 and 15%, and what is exposed by 20: so much do
  // their squared logarithms count.
  constexpr auto trust = [](double error) { return 0.05 * 0.05 / (error * error); };
  constexpr Point trusts = {trust(0.2), trust(0.15), trust(0.2)};
  auto const speeds_at = [](Point const& at) {
    return Speeds{.computing = std::exp(at[0]), .moving = std::exp(at[1]), .exposed = std::exp(at[2])};
  };
  auto const squares = [&](Point const& at) {
    double sum = 0.0;
    for (std::size_t i = 0; i < at.size(); ++i) sum += trusts[i] * at[i] * at[i];
    Machine const tried = with_speeds(machine, speeds_at(at));
    for (auto const& [plan, seconds] : plans) {
      double const error = std::log(simulate(*plan, tried, Record::nothing).seconds / seconds);
      sum += error * error;
    }
    return sum;
  };
  Point best = {};
  double least = squares(best);
  auto const try_beside = [&](Point at, std::array<int, 3> const& steps, double step) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      at[i] = std::clamp(at[i] + steps[i] * step, lowest, highest[i]);
    }
    double const found = squares(at);
    if (found >= least) return;
    least = found;
    best = at;
  };
  double step = std::numbers::ln2 / 2;
  for (int level = 0; level < levels; ++level, step /= 2) {
    Point const middle = best;
    for (int i = -2; i <= 2; ++i) {
      for (int j = -2; j <= 2; ++j) {
        for (int k = -1; k <= 1; ++k) try_beside(middle, {i, j, k}, step);
      }
    }
  }
  return speeds_at(best);
}

double seconds_of(TimedExchange const& exchange, Link const& link) {
  double const one = link.message_seconds + exchange.bytes / link.bytes_per_second;
  return link.latency_seconds + exchange.messages * one;
}

Link fit_link(std::span<TimedExchange const> exchanges) {
  double longest = 0.0;
  for (TimedExchange const& exchange : exchanges) longest = std::max(longest, exchange.seconds);
  std::vector<Observation> observations;
  for (auto const& [messages, bytes, seconds] : exchanges) {
    observations.push_back({{1.0, messages, messages * bytes}, seconds, weight_of(seconds, longest)});
  }
  std::vector<double> const x = fit_non_negative(observations);
  return {.latency_seconds = x[0], .bytes_per_second = inverse(x[2]), .message_seconds = x[1]};
}

double fit_buffer(std::span<TimedSend const> sends, double late_seconds, Link const& link) {
  double most = 0.0;
  for (auto const& [bytes, seconds] : sends) {
    if (seconds < late_seconds / 2) most = std::max(most, bytes - seconds * link.bytes_per_second);
  }
  return most;
}

double worst_error(std::span<TimedFold const> folds, Machine const& machine) {
  double worst = 0.0;
  for (TimedFold const& fold : folds) {
    worst = std::max(worst, std::abs(seconds(fold.work, machine) / fold.seconds - 1));
  }
  return worst;
}

double worst_error(std::span<TimedMerge const> merges, Machine const& machine) {
  double worst = 0.0;
  for (TimedMerge const& merge : merges) {
    worst = std::max(worst, std::abs(merge_seconds(merge.bytes, machine) / merge.seconds - 1));
  }
  return worst;
}

double worst_error(std::span<TimedExchange const> exchanges, Link const& link) {
  double worst = 0.0;
  for (TimedExchange const& exchange : exchanges) {
    worst = std::max(worst, std::abs(seconds_of(exchange, link) / exchange.seconds - 1));
  }
  return worst;
}

}  // namespace plait
