#include "timeline_picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "axis.hpp"
#include "svg.hpp"

namespace plait {
namespace {

constexpr double width = 1100;
constexpr double left = 148;
constexpr double right = 24;
constexpr double top = 104;
constexpr double row_height = 17;
constexpr double rank_gap = 13;
constexpr int most_ranks = 12;
constexpr std::size_t most_ticks = 9;
/// Pixels below which a bar is no bar.
constexpr double least_width = 0.7;

constexpr std::array row_names = {"compute", "send", "receive"};
constexpr int rows = static_cast<int>(row_names.size());

struct Kind {
  std::string_view name;
  std::string_view colour;
  std::string_view letters;  ///< colour of text on it
};

/// Okabe & Ito's colours again.
Kind kind_of(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::fold:
      return {"fold", "#0072b2", "#ffffff"};
    case Event::Kind::merge:
      return {"merge", "#e69f00", "#222222"};
    case Event::Kind::finish:
      return {"finish", "#009e73", "#ffffff"};
    case Event::Kind::wait:
      return {"wait", "#ffffff", "#222222"};
    case Event::Kind::send:
      return {"send", "#d55e00", "#ffffff"};
    case Event::Kind::receive:
      return {"receive", "#cc79a7", "#222222"};
  }
  __builtin_unreachable();
}

/// Waiting is what the compute row leaves white.
std::optional<int> row_of(Event::Kind kind) {
  if (kind == Event::Kind::wait) return std::nullopt;
  return kind == Event::Kind::send ? 1 : kind == Event::Kind::receive ? 2 : 0;
}

std::string words_on(Event const& event, Plan const& plan) {
  if (event.kind == Event::Kind::send) return fmt::format("to {}", event.peer);
  if (event.kind == Event::Kind::receive) return fmt::format("from {}", event.peer);
  if (event.kind != Event::Kind::fold || event.block < 0) return std::string(name(event.kind));
  int const home = plan.block(event.block).home;
  return home == Block::gathered ? "fold" : fmt::format("kv {}", home);
}

/// Events of one row that overlap lie in lanes, one below the other.
struct Lanes {
  std::vector<int> lane;  ///< of each event
  int count = 1;
};
Lanes lanes_of(std::vector<Event const*> const& events) {
  Lanes lanes;
  std::vector<double> busy_until;
  for (Event const* event : events) {
    auto lane = std::ranges::find_if(busy_until,
                                     [&](double end) { return end <= event->start_seconds * (1 + 1e-9); });
    if (lane == busy_until.end()) lane = busy_until.insert(lane, 0.0);
    *lane = event->end_seconds;
    lanes.lane.push_back(static_cast<int>(lane - busy_until.begin()));
  }
  lanes.count = std::max<int>(1, static_cast<int>(busy_until.size()));
  return lanes;
}

class TimelineDrawing {
 public:
  TimelineDrawing(Timeline const& timeline, Plan const& plan)
      : timeline_(timeline), plan_(plan), ranks_(std::min(plan.ranks(), most_ranks)) {
    for (Event const& event : timeline) seconds_ = std::max(seconds_, event.end_seconds);
    if (seconds_ <= 0.0) seconds_ = 1e-9;
  }

  std::string draw(std::string const& title, std::string const& subtitle) {
    bool const cut = ranks_ < plan_.ranks();
    double const bottom = rank_top(ranks_) - rank_gap;
    Svg svg(width, bottom + (cut ? 74 : 56), title);
    svg.text({24, 30}, title, {.size = 18, .bold = true});
    svg.text({24, 52}, subtitle, {.size = 13, .colour = "#555555"});
    legend(svg);
    grid(svg, bottom);
    for (int rank = 0; rank < ranks_; ++rank) draw_rank(svg, rank);
    if (cut) {
      svg.text({24, bottom + 64}, fmt::format("The first {} of {} ranks.", ranks_, plan_.ranks()),
               {.size = 12, .colour = "#555555"});
    }
    return std::move(svg).document();
  }

 private:
  [[nodiscard]] double x(double seconds) const { return left + seconds / seconds_ * (width - left - right); }
  [[nodiscard]] static double rank_top(int rank) { return top + rank * (rows * row_height + rank_gap); }

  static void legend(Svg& svg) {
    double at = left;
    for (auto const kind : {Event::Kind::fold, Event::Kind::merge, Event::Kind::finish, Event::Kind::send,
                            Event::Kind::receive}) {
      Kind const shown = kind_of(kind);
      svg.rectangle({at, 68}, 16, 13, shown.colour);
      svg.text({at + 22, 79}, shown.name, {.size = 13});
      at += 22 + text_width(shown.name, 13) + 26;
    }
    svg.text({at, 79}, "white in the compute row: waiting", {.size = 13, .colour = "#555555"});
  }

  void grid(Svg& svg, double bottom) const {
    for (double const tick : linear_ticks(0.0, seconds_, most_ticks)) {
      svg.line({x(tick), top - 8}, {x(tick), bottom + 6}, {"#e4e4e4"});
      svg.text({x(tick), bottom + 22}, tick_label(Quantity::seconds, tick),
               {.size = 13, .anchor = Anchor::middle});
    }
    svg.text({left + (width - left - right) / 2, bottom + 44}, "time since the common start",
             {.size = 14, .anchor = Anchor::middle});
  }

  void draw_rank(Svg& svg, int rank) const {
    double const y = rank_top(rank);
    svg.text({24, y + 1.5 * row_height + 5}, fmt::format("rank {}", rank), {.size = 14, .bold = true});
    for (int row = 0; row < rows; ++row) {
      double const row_y = y + row * row_height;
      svg.text({left - 8, row_y + row_height - 5}, row_names[static_cast<std::size_t>(row)],
               {.size = 11.5, .colour = "#555555", .anchor = Anchor::end});
      draw_row(svg, rank, row, row_y);
    }
    svg.line({left, y + rows * row_height}, {width - right, y + rows * row_height}, {"#bbbbbb"});
  }

  void draw_row(Svg& svg, int rank, int row, double y) const {
    std::vector<Event const*> events;
    for (Event const& event : timeline_) {
      if (event.rank == rank && row_of(event.kind) == row) events.push_back(&event);
    }
    std::ranges::stable_sort(events, {}, [](Event const* event) { return event->start_seconds; });
    Lanes const lanes = lanes_of(events);
    double const lane_height = (row_height - 2) / lanes.count;
    for (std::size_t i = 0; i < events.size(); ++i) {
      bar(svg, *events[i], y + 1 + lanes.lane[i] * lane_height, lane_height);
    }
  }

  void bar(Svg& svg, Event const& event, double y, double height) const {
    Kind const kind = kind_of(event.kind);
    double const begin = x(event.start_seconds);
    double const length = x(event.end_seconds) - begin;
    // A hair between neighbours, where there is room for one.
    double const hair = length > 4 ? 0.8 : 0.0;
    svg.rectangle({begin, y}, std::max(length - hair, least_width), height, kind.colour);
    std::string const words = words_on(event, plan_);
    constexpr double size = 10.5;
    if (height >= size && length > text_width(words, size) + 6) {
      svg.text({begin + length / 2, y + height / 2 + 3.8}, words,
               {.size = size, .colour = std::string(kind.letters), .anchor = Anchor::middle});
    }
  }

  Timeline const& timeline_;
  Plan const& plan_;
  int ranks_;
  double seconds_ = 0.0;
};

}  // namespace

std::string draw_timeline(Timeline const& timeline, Plan const& plan, std::string const& title,
                          std::string const& subtitle) {
  return TimelineDrawing(timeline, plan).draw(title, subtitle);
}

}  // namespace plait
