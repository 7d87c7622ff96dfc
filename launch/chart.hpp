// A line chart: one line per series over a logarithmic count axis, measured points filled, simulated hollow.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "axis.hpp"
#include "svg.hpp"

namespace plait {

struct ChartPoint {
  double x = 0.0;
  double y = 0.0;
};

struct Series {
  std::string name;
  std::vector<ChartPoint> measured;   ///< ascending in x
  std::vector<ChartPoint> simulated;  ///< also where there is a measured point: the prediction
  bool baseline = false;              ///< drawn broad and grey, below the others
};

struct Chart {
  std::string title;
  std::string subtitle;
  std::string x_label;
  std::string y_label;
  Quantity y_quantity = Quantity::seconds;
  std::vector<Series> series;
  /// A thin line for comparison, with its name: what perfect scaling would be.
  std::vector<ChartPoint> reference = {};
  std::string reference_name = {};
  std::vector<std::string> notes = {};  ///< lines below the chart
};

/// The chart as an SVG document. Points with y ≤ 0 have no place on a logarithmic axis and are left out.
[[nodiscard]] std::string draw(Chart const& chart);

/// Moves labels that would overlap apart, as little as needed, in the order of `wanted`, within [low, high].
/// @param wanted  ascending
[[nodiscard]] std::vector<double> spread_labels(std::vector<double> const& wanted, double gap, double low,
                                                double high);

}  // namespace plait
