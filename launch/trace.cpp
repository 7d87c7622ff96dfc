#include "trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "file_error.hpp"

namespace plait {
namespace {

using Json = nlohmann::ordered_json;

enum class Row : std::uint8_t { compute, wait, send, receive };
constexpr std::array row_names = {"compute", "wait", "send", "receive"};
/// Row ids leave room for this many rows of one kind.
constexpr int rows_per_kind = 100'000;

Row row_of(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::fold:
    case Event::Kind::merge:
    case Event::Kind::finish:
      return Row::compute;
    case Event::Kind::wait:
      return Row::wait;
    case Event::Kind::send:
      return Row::send;
    case Event::Kind::receive:
      return Row::receive;
  }
  __builtin_unreachable();
}

/// Whole nanoseconds, so that rounding can't make neighbours overlap.
std::int64_t nanoseconds(double seconds) {
  return std::llround(seconds * 1e9);
}

double microseconds(std::int64_t ns) {
  return static_cast<double>(ns) / 1e3;
}

Json metadata(std::string_view what, int rank, int row, Json args) {
  return {{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", row}, {"args", std::move(args)}};
}

class Tracer {
 public:
  explicit Tracer(Plan const& plan) : plan_(plan) {}

  void add_rank(int rank, std::string const& name) {
    events_.push_back(metadata("process_name", rank, 0, {{"name", name}}));
    events_.push_back(metadata("process_sort_index", rank, 0, {{"sort_index", rank}}));
  }

  /// Events come in ascending order of their start.
  void add(Event const& event) {
    std::int64_t const start = nanoseconds(event.start_seconds);
    std::int64_t const end = std::max(start, nanoseconds(event.end_seconds));
    Json args = {{"round", event.round}};
    std::string title(name(event.kind));
    if (event.block >= 0) {
      Block const& block = plan_.block(event.block);
      title += fmt::format(" {}", describe(block));
      args["block"] = describe(block);
      if (event.peer >= 0) args["bytes"] = bytes(block, plan_.problem.shape);
    }
    if (event.peer >= 0) args["peer"] = event.peer;
    events_.push_back({{"name", std::move(title)},
                       {"cat", name(event.kind)},
                       {"ph", "X"},
                       {"pid", event.rank},
                       {"tid", free_row(event.rank, row_of(event.kind), start, end)},
                       {"ts", microseconds(start)},
                       {"dur", microseconds(end - start)},
                       {"args", std::move(args)}});
  }

  std::string json() && {
    return Json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events_)}}.dump(1) + "\n";
  }

 private:
  /// The first row of the kind whose last event is over; a new one if none is.
  int free_row(int rank, Row kind, std::int64_t start, std::int64_t end) {
    std::vector<std::int64_t>& ends = row_ends_[{rank, kind}];
    auto const row = std::ranges::find_if(ends, [&](std::int64_t busy_until) { return busy_until <= start; });
    auto const index = static_cast<int>(row - ends.begin());
    int const tid = 1 + static_cast<int>(kind) * rows_per_kind + index;
    if (row == ends.end()) {
      char const* const base = row_names[static_cast<std::size_t>(kind)];
      std::string const row_name = index == 0 ? base : fmt::format("{} {}", base, index + 1);
      events_.push_back(metadata("thread_name", rank, tid, {{"name", row_name}}));
      events_.push_back(metadata("thread_sort_index", rank, tid, {{"sort_index", tid}}));
      ends.push_back(end);
    } else {
      *row = end;
    }
    return tid;
  }

  Plan const& plan_;
  Json events_ = Json::array();
  std::map<std::pair<int, Row>, std::vector<std::int64_t>> row_ends_;
};

}  // namespace

std::string trace_json(std::span<Event const> timeline, Plan const& plan,
                       std::vector<std::string> const& rank_names) {
  std::vector<Event> events(timeline.begin(), timeline.end());
  std::ranges::stable_sort(events, {},
                           [](Event const& e) { return std::tuple(e.start_seconds, e.end_seconds); });
  Tracer tracer(plan);
  for (std::size_t rank = 0; rank < rank_names.size(); ++rank) {
    tracer.add_rank(static_cast<int>(rank), rank_names[rank]);
  }
  for (Event const& event : events) tracer.add(event);
  return std::move(tracer).json();
}

void write_file(std::string const& path, std::string_view content) {
  std::string const part = path + ".part";
  auto const fail = [&](char const* what) {
    int const error = errno;
    std::remove(part.c_str());
    throw FileError(fmt::format("{}: {}: {}", path, what, std::strerror(error)));
  };
  std::FILE* const file = std::fopen(part.c_str(), "wb");
  if (file == nullptr) fail("can't be opened for writing");
  bool const written = std::fwrite(content.data(), 1, content.size(), file) == content.size();
  bool const closed = std::fclose(file) == 0;
  if (!written || !closed) fail("can't be written");
  if (std::rename(part.c_str(), path.c_str()) != 0) fail("can't be renamed into place");
}

}  // namespace plait
