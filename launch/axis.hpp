// The axis of a plot: where values lie on it, which get a tick, and what stands beside the tick.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plait {

/// Multiples of 1, 2 or 5 times a power of ten within [low, high]: the finest step with at most `most` ticks.
[[nodiscard]] std::vector<double> linear_ticks(double low, double high, std::size_t most);

/// Powers of ten within [low, high], thinned to at most `most`; where there are fewer than three, also their
/// multiples by 2 and 5. @param low  above 0
[[nodiscard]] std::vector<double> decimal_ticks(double low, double high, std::size_t most);

/// Powers of two within [low, high], thinned to every second, third, … so that there are at most `most`.
/// @param low  above 0
[[nodiscard]] std::vector<double> binary_ticks(double low, double high, std::size_t most);

enum class Quantity : std::uint8_t { count, seconds, share, bytes };

struct Axis {
  std::string label;
  Quantity quantity = Quantity::count;
  bool logarithmic = true;
  double low = 1.0;
  double high = 10.0;
  std::vector<double> ticks;
  std::vector<double> minor;  ///< grid lines without a label

  /// 0 at `low`, 1 at `high`.
  [[nodiscard]] double position(double value) const;
};

/// An axis on which all of `values` lie, with room at the ends and for two ticks. Counts and bytes tick by
/// powers of two, seconds by powers of ten, shares evenly from 0 to at least 100%.
[[nodiscard]] Axis make_axis(std::string label, Quantity quantity, std::vector<double> const& values);

/// "64", "10 ms", "25%", "2 MiB".
[[nodiscard]] std::string tick_label(Quantity quantity, double value);

}  // namespace plait
