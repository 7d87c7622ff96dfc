#include "chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace plait {
namespace {

constexpr double width = 900;
constexpr double plot_height = 380;
constexpr double left = 92;
constexpr double right_margin = 190;
constexpr double top = 74;
constexpr double note_top = 78;  ///< below the plot
constexpr double note_height = 18;
constexpr double label_gap = 19;
constexpr double text_size = 13;
constexpr std::string_view grid = "#e4e4e4";
constexpr std::string_view faint_grid = "#f3f3f3";
constexpr std::string_view ink = "#222222";

/// Okabe & Ito's colours, which colour-blind readers tell apart; their black is the baseline's, and their
/// yellow is too pale for lines on white. @see Okabe, Ito: Color Universal Design, 2008
constexpr std::array<std::string_view, 6> colours = {"#0072b2", "#d55e00", "#009e73",
                                                     "#cc79a7", "#e69f00", "#56b4e9"};
constexpr std::string_view baseline_colour = "#3c3c3c";
constexpr std::array shapes = {Shape2D::square, Shape2D::triangle, Shape2D::diamond,
                               Shape2D::wedge,  Shape2D::hexagon,  Shape2D::circle};

struct Style {
  std::string colour;
  Shape2D shape = Shape2D::circle;
  double width = 2.0;
};

class Drawing {
 public:
  explicit Drawing(Chart const& chart)
      : chart_(chart),
        x_(make_axis(chart.x_label, Quantity::count, all(&ChartPoint::x))),
        y_(make_axis(chart.y_label, chart.y_quantity, all(&ChartPoint::y))),
        svg_(width, top + plot_height + note_top + note_height * static_cast<double>(chart.notes.size()),
             chart.title) {
    std::size_t next = 0;
    for (Series const& series : chart_.series) {
      styles_.push_back(series.baseline ? Style{std::string(baseline_colour), Shape2D::circle, 5.0}
                                        : Style{std::string(colours[next % colours.size()]),
                                                shapes[next % shapes.size()], 2.0});
      if (!series.baseline) ++next;
    }
  }

  std::string draw() && {
    headings();
    axes();
    if (!chart_.reference.empty()) svg_.path(spots(chart_.reference), {"#888888", 1.2, "2 4"});
    for (bool const baseline : {true, false}) {
      for (std::size_t i = 0; i < styles_.size(); ++i) {
        if (chart_.series[i].baseline == baseline) lines(chart_.series[i], styles_[i]);
      }
    }
    labels();
    notes();
    return std::move(svg_).document();
  }

 private:
  [[nodiscard]] bool shown(ChartPoint const& point) const {
    return chart_.y_quantity == Quantity::share || point.y > 0.0;
  }

  std::vector<double> all(double ChartPoint::*coordinate) const {
    std::vector<double> values;
    for (Series const& series : chart_.series) {
      for (auto const* points : {&series.measured, &series.simulated}) {
        for (ChartPoint const& point : *points) {
          if (shown(point)) values.push_back(point.*coordinate);
        }
      }
    }
    for (ChartPoint const& point : chart_.reference) values.push_back(point.*coordinate);
    return values;
  }

  [[nodiscard]] Spot spot(ChartPoint const& point) const {
    return {left + x_.position(point.x) * (width - left - right_margin),
            top + (1.0 - y_.position(point.y)) * plot_height};
  }

  std::vector<Spot> spots(std::vector<ChartPoint> const& points) const {
    std::vector<Spot> found;
    for (ChartPoint const& point : points) {
      bool const inside = shown(point) && point.y >= y_.low && point.y <= y_.high;
      if (inside) found.push_back(spot(point));
    }
    return found;
  }

  void headings() {
    svg_.text({left, 28}, chart_.title, {.size = 18, .bold = true});
    svg_.text({left, 50}, chart_.subtitle, {.size = text_size, .colour = "#555555"});
    double const middle = left + (width - left - right_margin) / 2;
    svg_.text({middle, top + plot_height + 46}, x_.label, {.size = 14, .anchor = Anchor::middle});
    svg_.text({24, top + plot_height / 2}, y_.label, {.size = 14, .anchor = Anchor::middle, .upwards = true});
  }

  void across(double value, std::string_view colour) {
    double const height = spot({x_.low, value}).y;
    svg_.line({left, height}, {width - right_margin, height}, {std::string(colour)});
  }

  void axes() {
    for (double const value : y_.minor) across(value, faint_grid);
    for (double const value : y_.ticks) {
      across(value, grid);
      svg_.text({left - 9, spot({x_.low, value}).y + 4.5}, tick_label(y_.quantity, value),
                {.size = text_size, .anchor = Anchor::end});
    }
    double const bottom = top + plot_height;
    for (double const value : x_.ticks) {
      double const x = spot({value, y_.high}).x;
      svg_.line({x, top}, {x, bottom}, {std::string(grid)});
      svg_.text({x, bottom + 20}, tick_label(x_.quantity, value),
                {.size = text_size, .anchor = Anchor::middle});
    }
    svg_.line({left, bottom}, {width - right_margin, bottom}, {std::string(ink), 1.2});
    svg_.line({left, top}, {left, bottom}, {std::string(ink), 1.2});
  }

  /// Predictions are dashed with hollow marks; what was measured is solid with filled marks, on top.
  void lines(Series const& series, Style const& style) {
    bool const alone = series.measured.empty();
    std::vector<Spot> const simulated = spots(series.simulated);
    std::vector<Spot> const measured = spots(series.measured);
    if (simulated.size() > 1) {
      svg_.path(simulated, {style.colour, style.width * (alone ? 1.0 : 0.7), alone ? "" : "6 4"});
    }
    for (Spot const& at : simulated) svg_.marker(at, style.shape, style.colour, Fill::hollow);
    if (measured.size() > 1) svg_.path(measured, {style.colour, style.width});
    for (Spot const& at : measured) svg_.marker(at, style.shape, style.colour, Fill::filled);
  }

  /// The name of each line stands at its end, with its mark.
  void labels() {
    struct End {
      Spot at;
      std::string name;
      Style style;
      Fill fill;
    };
    std::vector<End> ends;
    auto const add = [&](std::vector<Spot> const& line, std::string const& name, Style const& style,
                         Fill fill) {
      if (!line.empty()) ends.push_back({line.back(), name, style, fill});
    };
    for (std::size_t i = 0; i < styles_.size(); ++i) {
      Series const& series = chart_.series[i];
      std::vector<Spot> const simulated = spots(series.simulated);
      std::vector<Spot> const measured = spots(series.measured);
      if (simulated.empty()) {
        add(measured, series.name, styles_[i], Fill::filled);
      } else {
        add(simulated, series.name, styles_[i], Fill::hollow);
      }
    }
    if (!chart_.reference.empty()) {
      add(spots(chart_.reference), chart_.reference_name, {"#888888", Shape2D::circle, 1.2}, Fill::filled);
    }
    std::ranges::stable_sort(ends, {}, [](End const& end) { return end.at.y; });
    std::vector<double> wanted;
    for (End const& end : ends) wanted.push_back(end.at.y);
    std::vector<double> const heights = spread_labels(wanted, label_gap, top, top + plot_height);
    double const x = width - right_margin + 26;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      End const& end = ends[i];
      bool const is_reference = end.name == chart_.reference_name;
      svg_.line({end.at.x + 7, end.at.y}, {x - (is_reference ? 0 : 7), heights[i]},
                {end.style.colour, 0.8, "1 2"});
      if (!is_reference) svg_.marker({x, heights[i]}, end.style.shape, end.style.colour, end.fill);
      svg_.text({x + (is_reference ? 4 : 11), heights[i] + 4.5}, end.name,
                {.size = text_size, .colour = is_reference ? "#666666" : std::string(ink)});
    }
  }

  void notes() {
    double y = top + plot_height + note_top;
    for (std::string const& note : chart_.notes) {
      svg_.text({left, y}, note, {.size = 12, .colour = "#555555"});
      y += note_height;
    }
  }

  Chart const& chart_;
  Axis x_;
  Axis y_;
  Svg svg_;
  std::vector<Style> styles_;
};

}  // namespace

std::string draw(Chart const& chart) {
  return Drawing(chart).draw();
}

std::vector<double> spread_labels(std::vector<double> const& wanted, double gap, double low, double high) {
  std::vector<double> placed = wanted;
  for (std::size_t i = 0; i < placed.size(); ++i) {
    double const above = i == 0 ? low : placed[i - 1] + gap;
    placed[i] = std::max(placed[i], above);
  }
  for (std::size_t i = placed.size(); i-- > 0;) {
    double const below = i + 1 == placed.size() ? high : placed[i + 1] - gap;
    placed[i] = std::min(placed[i], below);
  }
  return placed;
}

}  // namespace plait
