#include "study_row.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "size.hpp"

namespace plait {
namespace {

bool same_heads(StudyRow const& a, StudyRow const& b) {
  return a.shape.q_heads == b.shape.q_heads && a.shape.kv_heads == b.shape.kv_heads;
}

bool is_measured(StudyRow const& row) {
  return row.refused.empty() && row.source == Source::measured;
}

/// The fastest measured one-rank row with the heads of `row`; null if there is none.
StudyRow const* one_rank_row(std::vector<StudyRow> const& rows, StudyRow const& row) {
  StudyRow const* best = nullptr;
  for (StudyRow const& other : rows) {
    bool const fits = is_measured(other) && other.ranks == 1 && same_heads(other, row);
    if (fits && (best == nullptr || other.seconds < best->seconds)) best = &other;
  }
  return best;
}

/// One cell as RFC 4180 has it.
std::string csv_cell(Json const& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string const text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char const c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::string_view name(Source source) {
  return source == Source::measured ? "measured" : "simulated";
}

double efficiency(double one_rank_seconds, int ranks, double seconds) {
  return seconds > 0.0 ? one_rank_seconds / (ranks * seconds) : 0.0;
}

void set_efficiencies(std::vector<StudyRow>& rows) {
  for (StudyRow& row : rows) {
    if (!row.refused.empty()) continue;
    row.one_rank_seconds = row.predicted_one_rank_seconds;
    if (is_measured(row)) {
      StudyRow const* const one = one_rank_row(rows, row);
      if (one != nullptr && one->flops > 0) row.one_rank_seconds = one->seconds * (row.flops / one->flops);
    }
    row.efficiency = efficiency(row.one_rank_seconds, row.ranks, row.seconds);
  }
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  std::size_t const half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json row_json(StudyRow const& row) {
  bool const figures = row.refused.empty();
  bool const measured = is_measured(row);
  auto const only = [](bool wanted, auto value) { return wanted ? Json(value) : Json(nullptr); };
  // Of the chain of steps that ends last.
  auto const share = [&](double seconds) {
    return only(figures, row.predicted_seconds > 0 ? seconds / row.predicted_seconds : 0.0);
  };
  return {{"scaling", name(row.scaling)},
          {"strategy", row.strategy},
          {"plan", only(figures, row.plan)},
          {"layout", row.layout},
          {"mask", row.mask},
          {"heads", row.shape.q_heads},
          {"kv_heads", row.shape.kv_heads},
          {"ranks", row.ranks},
          {"tokens", row.shape.q_tokens},
          {"source", name(row.source)},
          {"seconds", only(figures, row.seconds)},
          {"predicted_seconds", only(figures, row.predicted_seconds)},
          {"tflops_per_rank", only(figures, row.tflops_per_rank())},
          {"efficiency", only(figures, row.efficiency)},
          {"bytes_max", only(figures, row.bytes_max)},
          {"exposed_share", only(figures, row.exposed_share)},
          {"slots_bytes", only(figures, row.slots_bytes)},
          {"rounds", only(figures, row.rounds)},
          {"refused", only(!figures, row.refused)},
          {"seconds_min", only(measured, row.seconds_min)},
          {"seconds_max", only(measured, row.seconds_max)},
          {"one_rank_seconds", only(figures, row.one_rank_seconds)},
          {"predicted_one_rank_seconds", only(figures, row.predicted_one_rank_seconds)},
          {"predicted_exposed_share", only(figures, row.predicted_exposed_share)},
          {"predicted_fold_share", share(row.critical.fold)},
          {"predicted_merge_share", share(row.critical.merge)},
          {"predicted_node_share", share(row.critical.node)},
          {"predicted_network_share", share(row.critical.network)},
          {"predicted_latency_share", share(row.critical.latency)},
          {"kv_tokens", row.shape.kv_tokens},
          {"batch", row.shape.batch},
          {"dim", row.shape.head_dim},
          {"value_dim", row.shape.value_dim},
          {"dtype", name(row.shape.dtype)}};
}

std::string rows_csv(std::vector<StudyRow> const& rows) {
  std::string csv;
  Json const columns = row_json(StudyRow{});
  for (auto const& [column, value] : columns.items()) csv += (csv.empty() ? "" : ",") + column;
  for (StudyRow const& row : rows) {
    Json const cells = row_json(row);
    std::string line;
    for (auto const& [column, value] : cells.items()) line += (line.empty() ? "\n" : ",") + csv_cell(value);
    csv += line;
  }
  return csv + "\n";
}

std::string rows_table(std::vector<StudyRow> const& rows) {
  std::vector<std::vector<std::string>> cells = {{"heads", "ranks", "tokens", "plan", "source", "time",
                                                  "predicted", "TFLOP/s per rank", "efficiency",
                                                  "bytes, most", "exposed", "memory, most", "rounds", ""}};
  for (StudyRow const& row : rows) {
    std::vector<std::string> line = {fmt::format("{}:{}", row.shape.q_heads, row.shape.kv_heads),
                                     std::to_string(row.ranks), std::to_string(row.shape.q_tokens)};
    if (row.refused.empty()) {
      line.insert(line.end(),
                  {row.plan, std::string(name(row.source)), format_seconds(row.seconds),
                   format_seconds(row.predicted_seconds), fmt::format("{:.4g}", row.tflops_per_rank()),
                   fmt::format("{:.3f}", row.efficiency), format_bytes(row.bytes_max),
                   fmt::format("{:.3f}", row.exposed_share), format_bytes(row.slots_bytes),
                   std::to_string(row.rounds), ""});
    } else {
      line.insert(line.end(), {row.strategy, std::string(name(row.source)), "-", "-", "-", "-", "-", "-", "-",
                               "-", "refused: " + row.refused});
    }
    cells.push_back(std::move(line));
  }
  return format_table(cells);
}

}  // namespace plait
