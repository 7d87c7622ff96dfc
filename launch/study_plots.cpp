#include "study_plots.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "chart.hpp"
#include "size.hpp"
#include "timeline_picture.hpp"

namespace plait {
namespace {

/// Against which all others are read.
constexpr std::string_view baseline = "ring";

/// One figure of the rows, as a chart.
struct Figure {
  std::string_view file;
  std::string_view title;
  std::string_view y_label;
  Quantity quantity;
  double (*value)(StudyRow const&);      ///< of the row's own source
  double (*predicted)(StudyRow const&);  ///< of a measured row
};

double predicted_efficiency(StudyRow const& row) {
  return efficiency(row.predicted_one_rank_seconds, row.ranks, row.predicted_seconds);
}

constexpr std::array figures = {
    Figure{"time", "Time of one attention", "time", Quantity::seconds,
           [](StudyRow const& row) { return row.seconds; },
           [](StudyRow const& row) { return row.predicted_seconds; }},
    Figure{"efficiency", "Parallel efficiency", "efficiency", Quantity::share,
           [](StudyRow const& row) { return row.efficiency; }, predicted_efficiency},
    Figure{"bytes", "Bytes sent by the rank that sends most", "bytes sent", Quantity::bytes,
           [](StudyRow const& row) { return static_cast<double>(row.bytes_max); },
           [](StudyRow const& row) { return static_cast<double>(row.bytes_max); }},
    Figure{"exposed", "Share of the time spent waiting for transfers", "exposed share", Quantity::share,
           [](StudyRow const& row) { return row.exposed_share; },
           [](StudyRow const& row) { return row.predicted_exposed_share; }},
};

using Rows = std::vector<StudyRow>;

std::vector<std::string> strategies_of(Rows const& rows) {
  std::vector<std::string> names;
  for (StudyRow const& row : rows) {
    if (std::ranges::find(names, row.strategy) == names.end()) names.push_back(row.strategy);
  }
  return names;
}

std::string size_in_short(Index tokens) {
  if (tokens >= 1 << 20 && tokens % (1 << 20) == 0) return fmt::format("{}M", tokens >> 20);
  if (tokens >= 1 << 10 && tokens % (1 << 10) == 0) return fmt::format("{}K", tokens >> 10);
  return std::to_string(tokens);
}

/// "1M tokens, causal, 64:8 heads of 128, bf16, zigzag layout".
std::string problem_in_short(StudyRow const& row, bool fixed_ranks, std::string const& layout) {
  Shape const& shape = row.shape;
  bool const weak = row.scaling == Scaling::weak && !fixed_ranks;
  std::string const tokens = size_in_short(weak ? shape.q_tokens / row.ranks : shape.q_tokens);
  std::string const keys =
      shape.kv_tokens == shape.q_tokens ? "" : fmt::format(" × {} keys", size_in_short(shape.kv_tokens));
  return fmt::format("{} tokens{}{}, mask {}, {}:{} heads of {}, {}{}", tokens, keys, weak ? " per rank" : "",
                     row.mask, shape.q_heads, shape.kv_heads, shape.head_dim, name(shape.dtype),
                     layout.empty() ? "" : fmt::format(", {} layout", layout));
}

/// The layout of all points of more than one rank; empty if they differ.
std::string common_layout(Rows const& rows) {
  std::string layout;
  for (StudyRow const& row : rows) {
    if (row.ranks == 1 || !row.refused.empty()) continue;
    if (!layout.empty() && row.layout != layout) return "";
    layout = row.layout;
  }
  return layout;
}

Series series_of(Rows const& rows, Figure const& figure, std::string const& strategy) {
  Series series{.name = strategy, .measured = {}, .simulated = {}, .baseline = strategy == baseline};
  for (StudyRow const& row : rows) {
    if (row.strategy != strategy || !row.refused.empty()) continue;
    auto const ranks = static_cast<double>(row.ranks);
    if (row.source == Source::measured) {
      series.measured.push_back({ranks, figure.value(row)});
      series.simulated.push_back({ranks, figure.predicted(row)});
    } else {
      series.simulated.push_back({ranks, figure.value(row)});
    }
  }
  return series;
}

/// As simulated. Strong: T1/P. Weak: the time of one rank's share, T1/P too, which need not be constant under
/// a mask.
std::vector<ChartPoint> perfect_times(Rows const& rows) {
  std::vector<ChartPoint> points;
  for (StudyRow const& row : rows) {
    bool const is_new = points.empty() || points.back().x != row.ranks;
    if (row.refused.empty() && is_new) {
      points.push_back({static_cast<double>(row.ranks), row.predicted_one_rank_seconds / row.ranks});
    }
  }
  return points;
}

std::vector<std::string> notes_of(Rows const& rows) {
  bool const measured =
      std::ranges::any_of(rows, [](StudyRow const& row) { return row.source == Source::measured; });
  std::vector<std::string> notes = {
      measured ? "Filled marks and solid lines: measured. Hollow marks and dashed lines: simulated."
               : "Hollow marks: simulated; nothing here was measured."};
  for (std::string const& strategy : strategies_of(rows)) {
    std::vector<int> refused;
    for (StudyRow const& row : rows) {
      if (row.strategy == strategy && !row.refused.empty()) refused.push_back(row.ranks);
    }
    if (!refused.empty())
      notes.push_back(fmt::format("{}: no plan for {} ranks.", strategy, fmt::join(refused, ", ")));
  }
  return notes;
}

Picture picture_of(Rows const& rows, Figure const& figure, std::string const& suffix) {
  Chart chart{
      .title = std::string(figure.title),
      .subtitle = fmt::format("{} scaling: {}", rows.front().scaling == Scaling::strong ? "Strong" : "Weak",
                              problem_in_short(rows.front(), false, common_layout(rows))),
      .x_label = "ranks",
      .y_label = std::string(figure.y_label),
      .y_quantity = figure.quantity,
      .series = {},
      .notes = notes_of(rows)};
  for (std::string const& strategy : strategies_of(rows)) {
    chart.series.push_back(series_of(rows, figure, strategy));
  }
  if (figure.file == "time") {
    chart.reference = perfect_times(rows);
    chart.reference_name = "perfect";
  }
  return {.file = fmt::format("{}{}.svg", figure.file, suffix), .svg = draw(chart)};
}

}  // namespace

std::vector<Picture> study_pictures(Rows const& rows, TimelinePicture const& timeline) {
  std::vector<std::pair<HeadPair, Rows>> by_heads;
  for (StudyRow const& row : rows) {
    HeadPair const heads{row.shape.q_heads, row.shape.kv_heads};
    auto found = std::ranges::find(by_heads, heads, [](auto const& entry) { return entry.first; });
    if (found == by_heads.end()) found = by_heads.insert(found, {heads, {}});
    found->second.push_back(row);
  }
  std::vector<Picture> pictures;
  for (auto const& [heads, of_heads] : by_heads) {
    std::string const suffix = by_heads.size() == 1 ? "" : fmt::format("-{}-{}", heads.q, heads.kv);
    for (Figure const& figure : figures) pictures.push_back(picture_of(of_heads, figure, suffix));
  }
  if (timeline.plan) {
    StudyRow const& row = timeline.row;
    pictures.push_back(
        {.file = "timeline.svg",
         .svg = draw_timeline(timeline.timeline, *timeline.plan,
                              fmt::format("{} on {} ranks, {}", row.plan, row.ranks, name(row.source)),
                              problem_in_short(row, true, row.layout))});
  }
  return pictures;
}

}  // namespace plait
