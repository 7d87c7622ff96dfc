#include "axis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace plait {
namespace {

/// Relative room for rounding when a tick falls on an end of the range.
constexpr double slack = 1e-9;
constexpr std::size_t most_ticks = 10;

/// Powers of `base` in [low, high], every `step`-th, aligned so that exponent 0 would be one of them.
std::vector<double> powers(double base, double low, double high, int step) {
  std::vector<double> found;
  double const unit = std::log(base);
  int const first = static_cast<int>(std::ceil(std::log(low) / unit / step - slack)) * step;
  for (int exponent = first; std::pow(base, exponent) <= high * (1 + slack); exponent += step) {
    found.push_back(std::pow(base, exponent));
  }
  return found;
}

std::vector<double> thinned_powers(double base, double low, double high, std::size_t most) {
  for (int step = 1;; ++step) {
    std::vector<double> found = powers(base, low, high, step);
    if (found.size() <= std::max<std::size_t>(most, 1)) return found;
  }
}

/// Grid lines between the decades of a decimal axis.
std::vector<double> minor_decimals(double low, double high) {
  std::vector<double> found;
  for (double const decade : powers(10, low / 10, high, 1)) {
    for (int digit = 2; digit <= 9; ++digit) {
      double const value = digit * decade;
      if (value >= low && value <= high) found.push_back(value);
    }
  }
  return found;
}

}  // namespace

std::vector<double> linear_ticks(double low, double high, std::size_t most) {
  if (!(high > low)) return {low};
  double step = std::pow(10.0, std::floor(std::log10((high - low) / static_cast<double>(most))));
  constexpr std::array steps = {1.0, 2.0, 5.0, 10.0, 20.0};
  for (double const factor : steps) {
    double const candidate = step * factor;
    double const first = std::ceil(low / candidate - slack);
    double const last = std::floor(high / candidate + slack);
    if (last - first + 1 > static_cast<double>(most)) continue;
    std::vector<double> found;
    for (double i = first; i <= last; ++i) found.push_back(i * candidate + 0.0);  // no −0
    return found;
  }
  return {low, high};
}

std::vector<double> decimal_ticks(double low, double high, std::size_t most) {
  std::vector<double> found = thinned_powers(10, low, high, most);
  constexpr std::size_t enough = 3;
  if (found.size() >= enough) return found;
  for (double const decade : powers(10, low / 10, high, 1)) {
    for (double const factor : {2.0, 5.0}) {
      double const value = factor * decade;
      if (value >= low * (1 - slack) && value <= high * (1 + slack)) found.push_back(value);
    }
  }
  std::ranges::sort(found);
  return found;
}

std::vector<double> binary_ticks(double low, double high, std::size_t most) {
  return thinned_powers(2, low, high, most);
}

double Axis::position(double value) const {
  if (!logarithmic) return (value - low) / (high - low);
  return std::log(value / low) / std::log(high / low);
}

Axis make_axis(std::string label, Quantity quantity, std::vector<double> const& values) {
  Axis axis{.label = std::move(label), .quantity = quantity, .ticks = {}, .minor = {}};
  auto const [least, most] = std::ranges::minmax_element(values);
  double const low = values.empty() ? 1.0 : *least;
  double const high = values.empty() ? 1.0 : *most;
  if (quantity == Quantity::share) {
    axis.logarithmic = false;
    axis.low = 0.0;
    axis.high = std::max(1.0, high) * 1.04;
    axis.ticks = linear_ticks(axis.low, axis.high, most_ticks);
    return axis;
  }
  bool const counts = quantity == Quantity::count;
  double const room = counts ? 1.15 : 1.5;
  axis.low = low / room;
  axis.high = high * room;
  auto const tick = [&] {
    axis.ticks = quantity == Quantity::seconds
                     ? decimal_ticks(axis.low, axis.high, most_ticks)
                     : binary_ticks(axis.low, axis.high, counts ? 2 * most_ticks : most_ticks);
  };
  constexpr std::size_t enough = 2;  // one tick does not tell the scale
  for (tick(); axis.ticks.size() < enough; tick()) {
    axis.low /= room;
    axis.high *= room;
  }
  if (quantity == Quantity::seconds) axis.minor = minor_decimals(axis.low, axis.high);
  return axis;
}

std::string tick_label(Quantity quantity, double value) {
  struct Unit {
    double size;
    std::string_view name;
  };
  auto const in_units = [value](auto const& units) {
    Unit unit = units.front();
    for (Unit const& larger : units) {
      if (value >= larger.size * (1 - slack)) unit = larger;
    }
    return fmt::format("{:.4g} {}", value / unit.size, unit.name);
  };
  constexpr std::array<Unit, 4> times = {{{1e-9, "ns"}, {1e-6, "µs"}, {1e-3, "ms"}, {1.0, "s"}}};
  constexpr std::array<Unit, 5> sizes = {
      {{1.0, "B"}, {0x1p10, "KiB"}, {0x1p20, "MiB"}, {0x1p30, "GiB"}, {0x1p40, "TiB"}}};
  switch (quantity) {
    case Quantity::count:
      return fmt::format("{:.10g}", value);
    case Quantity::seconds:
      return value == 0.0 ? "0" : in_units(times);
    case Quantity::share:
      return fmt::format("{:.4g}%", value * 100);
    case Quantity::bytes:
      return in_units(sizes);
  }
  __builtin_unreachable();
}

}  // namespace plait
