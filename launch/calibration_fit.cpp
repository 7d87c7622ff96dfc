#include "calibration_fit.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
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

double inverse(double seconds_per_unit) {
  return seconds_per_unit > 1.0 / boundless ? 1.0 / seconds_per_unit : boundless;
}

/// The least squares over the unknowns in `set` alone, the others 0.
class SubsetFit {
 public:
  /// Observations divided by their seconds, so that each should give 1, and columns by their norms.
  explicit SubsetFit(std::span<Observation const> observations)
      : unknowns_(observations.front().factors.size()), norms_(unknowns_) {
    for (Observation const& observation : observations) {
      Row row = observation.factors;
      for (double& factor : row) factor /= observation.seconds;
      for (std::size_t i = 0; i < unknowns_; ++i) norms_[i] += row[i] * row[i];
      rows_.push_back(std::move(row));
    }
    for (double& norm : norms_) norm = norm > 0 ? std::sqrt(norm) : 1.0;
    for (Row& row : rows_) {
      for (std::size_t i = 0; i < unknowns_; ++i) row[i] /= norms_[i];
    }
  }

  [[nodiscard]] std::optional<Row> operator()(std::size_t set) const {
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < unknowns_; ++i) {
      if ((set >> i & 1u) != 0) members.push_back(i);
    }
    std::vector<Row> normal(members.size(), Row(members.size()));
    Row right(members.size());
    for (Row const& row : rows_) {
      for (std::size_t i = 0; i < members.size(); ++i) {
        right[i] += row[members[i]];
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
    for (Row const& row : rows_) {
      double predicted = 0.0;
      for (std::size_t i = 0; i < unknowns_; ++i) predicted += row[i] * x[i];
      sum += (predicted - 1.0) * (predicted - 1.0);
    }
    return sum;
  }
  [[nodiscard]] Row unscaled(Row x) const {
    for (std::size_t i = 0; i < unknowns_; ++i) x[i] /= norms_[i];
    return x;
  }

 private:
  std::size_t unknowns_;
  Row norms_;
  std::vector<Row> rows_;
};

}  // namespace

std::vector<double> fit_non_negative(std::span<Observation const> observations) {
  if (observations.empty()) throw std::invalid_argument("a fit needs observations");
  std::size_t const unknowns = observations.front().factors.size();
  for (Observation const& observation : observations) {
    bool const fits = observation.factors.size() == unknowns && observation.seconds > 0;
    if (!fits || unknowns > most_unknowns) throw std::invalid_argument("observations that do not fit");
  }
  SubsetFit const fit(observations);
  Row best(unknowns);
  double least = fit.squares(best);
  // Fewest unknowns first: one more must be worth it, or rounding decides between equals.
  constexpr double worth_it = 1e-12;
  for (std::size_t set = 1; set < (std::size_t{1} << unknowns); ++set) {
    std::optional<Row> const x = fit(set);
    if (!x || std::ranges::any_of(*x, [](double value) { return value < 0; })) continue;
    double const squares = fit.squares(*x);
    if (squares >= least - worth_it) continue;
    least = squares;
    best = *x;
  }
  return fit.unscaled(best);
}

void fit_steps(std::span<TimedFold const> folds, std::span<TimedStep const> steps, Machine& machine) {
  std::vector<Observation> observations;
  for (TimedFold const& fold : folds) {
    double const flops = fold.work.flops / busy_share(fold.work, machine);
    observations.push_back({{1.0, flops, 0.0, fold.work.bytes}, fold.seconds});
  }
  for (TimedStep const& step : steps) observations.push_back({{0.0, 0.0, 1.0, step.bytes}, step.seconds});
  std::vector<double> const x = fit_non_negative(observations);
  if (x[1] <= 0) throw std::invalid_argument("the folds' times do not grow with their flops");
  machine.fold_seconds = x[0];
  machine.flops_per_second = 1.0 / x[1];
  machine.step_seconds = x[2];
  machine.memory_bytes_per_second = inverse(x[3]);
}

Link fit_link(std::span<TimedExchange const> exchanges) {
  std::vector<Observation> observations;
  for (TimedExchange const& exchange : exchanges) {
    observations.push_back({{1.0, exchange.messages, exchange.messages * exchange.bytes}, exchange.seconds});
  }
  std::vector<double> const x = fit_non_negative(observations);
  return {.latency_seconds = x[0], .bytes_per_second = inverse(x[2]), .message_seconds = x[1]};
}

double worst_error(std::span<TimedFold const> folds, std::span<TimedStep const> steps,
                   Machine const& machine) {
  double worst = 0.0;
  for (TimedFold const& fold : folds) {
    worst = std::max(worst, std::abs(seconds(fold.work, machine) / fold.seconds - 1));
  }
  for (TimedStep const& step : steps) {
    worst = std::max(worst, std::abs(step_seconds(step.bytes, machine) / step.seconds - 1));
  }
  return worst;
}

double worst_error(std::span<TimedExchange const> exchanges, Link const& link) {
  double worst = 0.0;
  for (TimedExchange const& exchange : exchanges) {
    double const predicted =
        link.latency_seconds +
        exchange.messages * (link.message_seconds + exchange.bytes / link.bytes_per_second);
    worst = std::max(worst, std::abs(predicted / exchange.seconds - 1));
  }
  return worst;
}

}  // namespace plait
