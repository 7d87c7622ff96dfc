// One row of a study: a point, how long it took or is predicted to take, and the figures derived from that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plait/plan.hpp"
#include "plait/planner.hpp"
#include "report.hpp"
#include "study_flags.hpp"

namespace plait {

/// Where a row's `seconds` come from.
enum class Source : std::uint8_t { measured, simulated };
[[nodiscard]] std::string_view name(Source source);

struct StudyRow {
  Scaling scaling = Scaling::strong;
  std::string strategy;  ///< as it was asked for
  std::string plan;      ///< as it was planned, with its grid
  std::string layout;
  std::string mask;
  Shape shape;
  int ranks = 1;
  Source source = Source::simulated;
  double flops = 0.0;        ///< of the whole problem
  double seconds = 0.0;      ///< median, or predicted
  double seconds_min = 0.0;  ///< of the measured runs
  double seconds_max = 0.0;
  double predicted_seconds = 0.0;
  double one_rank_seconds = 0.0;  ///< of the same problem on one rank; see set_efficiencies
  double predicted_one_rank_seconds = 0.0;
  double efficiency = 0.0;
  double exposed_share = 0.0;  ///< of the time: the rank that waits most
  double predicted_exposed_share = 0.0;
  std::uint64_t bytes_max = 0;    ///< sent by the rank that sends most
  std::uint64_t slots_bytes = 0;  ///< of the rank that needs most
  std::size_t rounds = 0;
  Spent critical;       ///< what the predicted time is made of
  std::string refused;  ///< why there is no such plan; no other figure holds then

  [[nodiscard]] double tflops_per_rank() const { return flops / seconds / ranks * 1e-12; }
};

/// T1 / (P · T): one rank's time for the same problem over the time that P ranks spend on it.
[[nodiscard]] double efficiency(double one_rank_seconds, int ranks, double seconds);

/// What `efficiency` is, for people and in the JSON.
inline constexpr std::string_view efficiency_formula =
    "one_rank_seconds / (ranks * seconds); one_rank_seconds is the time of the same problem, with the same "
    "tokens in all, on one rank: for measured rows the fastest measured one-rank time of these heads, scaled "
    "by FLOPs if the tokens differ (if the study measured no single rank: as for simulated rows); for "
    "simulated rows the machine's";

/// Fills one_rank_seconds of the measured rows from measured one-rank rows of the same heads, where there are
/// any, else from the prediction, and the efficiency of all.
void set_efficiencies(std::vector<StudyRow>& rows);

/// Median; of an even number the mean of the two in the middle. @param values  not empty
[[nodiscard]] double median(std::vector<double> values);

/// A row as JSON: every column, null where there is no figure.
[[nodiscard]] Json row_json(StudyRow const& row);
/// The rows with a heading, comma-separated: the columns of row_json.
[[nodiscard]] std::string rows_csv(std::vector<StudyRow> const& rows);
/// The rows for people.
[[nodiscard]] std::string rows_table(std::vector<StudyRow> const& rows);

}  // namespace plait
