// Traces and tables: valid JSON, rows whose events never overlap, and what the report says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "check.hpp"
#include "explain.hpp"
#include "file_error.hpp"
#include "plait/planner.hpp"
#include "report.hpp"
#include "scratch.hpp"
#include "trace.hpp"

namespace plait {
namespace {

using testing_scratch::Scratch;

Choice ring_of(int ranks) {
  Problem const problem{.shape = {.q_tokens = 64, .kv_tokens = 64, .q_heads = 2, .kv_heads = 1},
                        .mask = Mask::causal(64, 64),
                        .scale = 0.125};
  return choose_plan(problem, ranks, "ring", "zigzag");
}

/// Rows (pid, tid) → the events on it as whole nanoseconds, sorted.
auto rows_of(nlohmann::json const& trace) {
  std::map<std::pair<int, int>, std::vector<std::pair<long long, long long>>> rows;
  for (auto const& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    auto const start = std::llround(event.at("ts").get<double>() * 1e3);
    auto const length = std::llround(event.at("dur").get<double>() * 1e3);
    EXPECT_GE(length, 0);
    rows[{event.at("pid"), event.at("tid")}].emplace_back(start, start + length);
  }
  for (auto& [row, events] : rows) std::ranges::sort(events);
  return rows;
}

void expect_no_overlap(nlohmann::json const& trace) {
  for (auto const& [row, events] : rows_of(trace)) {
    for (std::size_t i = 1; i < events.size(); ++i) EXPECT_LE(events[i - 1].second, events[i].first);
  }
}

TEST(Trace, RowsNeverOverlapWhateverTheEvents) {
  Choice const choice = ring_of(2);
  std::mt19937 random(5);
  std::uniform_real_distribution<double> seconds(0.0, 1e-3);
  Timeline timeline;
  for (int i = 0; i < 400; ++i) {
    double const start = seconds(random);
    timeline.push_back({.kind = static_cast<Event::Kind>(i % 6),
                        .rank = i % 2,
                        .start_seconds = start,
                        .end_seconds = start + seconds(random)});
  }
  auto const trace = nlohmann::json::parse(trace_json(timeline, choice.plan, {"rank 0 (a)", "rank 1 (b)"}));
  std::size_t events = 0;
  for (auto const& [row, list] : rows_of(trace)) events += list.size();
  EXPECT_EQ(events, 400u);
  expect_no_overlap(trace);
}

TEST(Trace, SimulatedRingNamesRanksRowsAndBytes) {
  Choice const choice = ring_of(4);
  Timeline const timeline = simulate(choice.plan, {}, Record::timeline).timeline;
  auto const trace = nlohmann::json::parse(trace_json(timeline, choice.plan, {"a", "b", "c", "d"}));
  expect_no_overlap(trace);
  std::set<std::string> processes, rows;
  std::uint64_t sent = 0;
  for (auto const& event : trace.at("traceEvents")) {
    if (event.at("name") == "process_name") processes.insert(event.at("args").at("name"));
    if (event.at("name") == "thread_name") rows.insert(event.at("args").at("name"));
    if (event.value("cat", "") == "send") sent += event.at("args").at("bytes").get<std::uint64_t>();
  }
  EXPECT_EQ(processes, (std::set<std::string>{"a", "b", "c", "d"}));
  for (char const* row : {"compute", "send", "receive"}) EXPECT_TRUE(rows.contains(row)) << row;
  // What a trace shows is what the plan sends: counted here from the plan's transfers.
  std::uint64_t planned = 0;
  for (Program const& program : choice.plan.programs) {
    for (Transfer const& send : program.sends) {
      planned += bytes(choice.plan.block(send.block), choice.plan.problem.shape);
    }
  }
  EXPECT_GT(planned, 0u);
  EXPECT_EQ(sent, planned);
}

TEST(Report, TableColumnsLineUp) {
  EXPECT_EQ(format_table({{"rank", "host"}, {"7", "a"}, {"12", "longer"}}),
            "  rank  host\n     7  a\n    12  longer\n");
}

TEST(Report, ShapeAndCandidatesHaveTheirKeys) {
  Choice const choice = ring_of(4);
  Json const shape = shape_json(choice.plan.problem.shape);
  EXPECT_EQ(shape.at("q_tokens"), 64);
  EXPECT_EQ(shape.at("dtype"), "f32");
  Json const list = candidates_json(choice.candidates);
  ASSERT_EQ(list.size(), 1u);
  for (char const* key :
       {"strategy", "layout", "predicted_seconds", "least_seconds", "bytes_max", "slots_bytes"}) {
    EXPECT_FALSE(list[0].at(key).is_null()) << key;
  }
  EXPECT_TRUE(list[0].at("refused").is_null());
  EXPECT_EQ(list[0].at("least_seconds"), list[0].at("predicted_seconds"));
}

/// Of a plan that was given up, it says no more than is known.
TEST(Report, PlansThatWereGivenUpHaveNoPrediction) {
  std::vector<Candidate> const candidates = {{.strategy = "ring", .layout = "zigzag", .least_seconds = 0.25}};
  Json const list = candidates_json(candidates);
  for (char const* key : {"predicted_seconds", "bytes_max", "slots_bytes", "refused"}) {
    EXPECT_TRUE(list[0].at(key).is_null()) << key;
  }
  EXPECT_EQ(list[0].at("least_seconds"), 0.25);
  EXPECT_NE(candidate_table(candidates, "mesh:1x2", "zigzag")
                .find("250.00 ms  -            -             or more: given up"),
            std::string::npos)
      << candidate_table(candidates, "mesh:1x2", "zigzag");
}

/// Nor is an estimate taken for a prediction.
TEST(Report, EstimatesAreCalledThat) {
  std::vector<Candidate> const candidates = {
      {.strategy = "ring", .layout = "zigzag", .least_seconds = 0.25, .estimated_seconds = 0.5},
      {.strategy = "mesh:1x2", .layout = "zigzag", .least_seconds = 0.25, .estimated_seconds = 0.375}};
  Json const list = candidates_json(candidates);
  EXPECT_TRUE(list[0].at("predicted_seconds").is_null());
  EXPECT_EQ(list[0].at("estimated_seconds"), 0.5);
  EXPECT_EQ(list[0].at("least_seconds"), 0.25);
  std::string const table = candidate_table(candidates, "mesh:1x2", "zigzag");
  EXPECT_NE(table.find("500.00 ms  -            -             estimate\n"), std::string::npos) << table;
  EXPECT_NE(table.find("375.00 ms  -            -             <- taken, by estimate\n"), std::string::npos)
      << table;
}

TEST(Report, ExplainsWhyAnotherThanTheFastestIsTaken) {
  Choice choice = ring_of(2);
  choice.predicted_seconds = 0.201;
  std::string_view const sentence =
      "mesh:2x2 (balanced layout) is faster by 0.5% (200.00 ms, not 201.00 ms), but ";
  EXPECT_EQ(explain(choice, {}).find(sentence), std::string::npos);
  choice.traded = {.strategy = "mesh:2x2",
                   .layout = "balanced",
                   .seconds = 0.2,
                   .slots_bytes = 4096,
                   .bytes_max = 3000,
                   .taken_slots_bytes = 1024,
                   .taken_bytes_max = 3000};
  std::string const words = explain(choice, {});
  EXPECT_NE(words.find(std::string(sentence) +
                       "needs 4.00 KiB of memory on a rank, not 1.00 KiB: ring (zigzag layout) is taken."),
            std::string::npos)
      << words;
  choice.traded->bytes_max = 5000;
  choice.traded->taken_bytes_max = 2048;
  Machine const cores_move_bytes{.host_seconds_per_byte = 1e-9};
  std::string const other_words = explain(choice, cores_move_bytes);
  EXPECT_NE(other_words.find(std::string(sentence) + "sends 4.88 KiB, not 2.00 KiB: ring"), std::string::npos)
      << other_words;
}

TEST(Report, FilesAppearWholeOrNotAtAll) {
  Scratch const scratch;
  write_file((scratch / "a").string(), "whole");
  EXPECT_EQ(scratch.names(), std::vector<std::string>{"a"});
  EXPECT_THROW(write_file((scratch / "missing" / "a").string(), "x"), FileError);
  EXPECT_THROW(write_file(scratch.path().string(), "x"), FileError);
  EXPECT_EQ(scratch.names(), std::vector<std::string>{"a"});
}

TEST(Check, SamplesAreSpreadFromFirstToLast) {
  EXPECT_EQ(sample_rows(10, 4), (std::vector<Index>{0, 3, 6, 9}));
  EXPECT_EQ(sample_rows(3, 100), (std::vector<Index>{0, 1, 2}));
  EXPECT_EQ(sample_rows(5, 1), (std::vector<Index>{0}));
  EXPECT_TRUE(sample_rows(0, 5).empty());
  std::vector<Index> const many = sample_rows(Index{1} << 40, 1000);
  EXPECT_EQ(many.back(), (Index{1} << 40) - 1);
  EXPECT_TRUE(std::ranges::is_sorted(many));
}

TEST(Check, FailsAboveTheToleranceAndOnNaN) {
  CheckResult check;
  check.out_tolerance = {.plain_error = 1.0, .unit = 0.5};
  check.out.max_abs_error = 3.0;
  EXPECT_TRUE(check.passed());
  check.out.max_abs_error = 3.0001;
  EXPECT_FALSE(check.passed());
  check.out.max_abs_error = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(check.passed());
  check.out.max_abs_error = 0.0;
  check.lse.max_abs_error = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(check.passed());
}

}  // namespace
}  // namespace plait
