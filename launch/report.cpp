#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>

#include "file_error.hpp"
#include "plait/strategy.hpp"
#include "size.hpp"
#include "trace.hpp"

namespace plait {
namespace {

/// Characters of UTF-8 text, all of which are one column wide here.
std::size_t width(std::string const& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80; }));
}

bool is_number(std::string const& cell) {
  return !cell.empty() && std::isdigit(static_cast<unsigned char>(cell.front()));
}

std::string range_of(std::vector<std::uint64_t> const& values) {
  auto const [least, most] = std::ranges::minmax_element(values);
  return *least == *most ? format_bytes(*most)
                         : fmt::format("{} to {}", format_bytes(*least), format_bytes(*most));
}

/// "key/value blocks", "query blocks and states": what the plan's sends carry.
std::string travellers(Plan const& plan) {
  std::array<bool, 4> seen{};
  for (Program const& program : plan.programs) {
    for (Transfer const& send : program.sends) {
      seen[static_cast<std::size_t>(plan.block(send.block).tensor)] = true;
    }
  }
  constexpr std::array words = {"query blocks", "key/value blocks", "partial states (m, l, O)",
                                "finished rows"};
  std::string list;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (seen[i]) list += fmt::format("{}{}", list.empty() ? "" : " and ", words[i]);
  }
  return list.empty() ? "nothing travels" : list + " travel";
}

std::string_view summary(std::string_view strategy) {
  std::string_view const base = strategy.substr(0, strategy.find(':'));
  for (Strategy const& known : strategies()) {
    if (known.name == base) return known.summary;
  }
  return "";
}

}  // namespace

std::string format_table(std::vector<std::vector<std::string>> const& rows) {
  std::vector<std::size_t> widths;
  for (auto const& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string table;
  for (auto const& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::string const pad(widths[i] - width(row[i]), ' ');
      bool const right = is_number(row[i]) || (&row == &rows.front() && rows.size() > 1 &&
                                               i < rows.back().size() && is_number(rows.back()[i]));
      line += fmt::format("  {}{}{}", right ? pad : "", row[i], right ? "" : pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    table += line + "\n";
  }
  return table;
}

std::string describe(Problem const& problem) {
  Shape const& shape = problem.shape;
  double const pairs = static_cast<double>(shape.q_tokens) * static_cast<double>(shape.kv_tokens);
  double const kept = pairs > 0 ? 100.0 * static_cast<double>(problem.mask.area()) / pairs : 0.0;
  return fmt::format(
      "{} queries × {} keys, batch {}, {} query over {} key/value heads, head {} value {}, {}; the mask "
      "keeps "
      "{:.1f}% of pairs ({} band{}); {:.3g} FLOP",
      shape.q_tokens, shape.kv_tokens, shape.batch, shape.q_heads, shape.kv_heads, shape.head_dim,
      shape.value_dim, name(shape.dtype), kept, problem.mask.bands().size(),
      problem.mask.bands().size() == 1 ? "" : "s", problem.flops());
}

/// The numbers of the ranks whose programs are written, by rank.
std::vector<std::uint64_t> of_written(Choice const& choice, std::vector<std::uint64_t> const& by_rank) {
  if (choice.sampled.empty()) return by_rank;
  std::vector<std::uint64_t> found;
  for (int const rank : choice.sampled) found.push_back(by_rank[static_cast<std::size_t>(rank)]);
  return found;
}

/// What the rank folds that folds most, of those whose programs are written, over an even share of all.
double largest_share(Plan const& plan) {
  Mask const& mask = plan.problem.mask;
  double most = 0.0;
  for (Program const& program : plan.programs) {
    double pairs = 0.0;
    for (Fold const& fold : program.folds) {
      Block const& q = plan.block(fold.q);
      pairs += static_cast<double>(mask.area(q.slice, plan.block(fold.kv).slice) * q.heads.size());
    }
    most = std::max(most, pairs);
  }
  auto const all = static_cast<double>(mask.area() * plan.problem.shape.kv_heads);
  return all == 0.0 ? 1.0 : most * plan.ranks() / all;
}

std::string describe(Choice const& choice, Volume const& volume) {
  Plan const& plan = choice.plan;
  std::string const which =
      choice.sampled.empty() ? "rank" : fmt::format("rank (of the {} sampled)", choice.sampled.size());
  return fmt::format(
      "Plan: {}: {}\n"
      "  {} layout, {} rank{}, {} round{}; {}: {} sent per {}\n"
      "  memory beside the tensors: {} per {}; largest share of the work {:.3f} of even\n",
      plan.strategy, summary(plan.strategy), choice.layout, plan.ranks(), plan.ranks() == 1 ? "" : "s",
      plan.rounds(), plan.rounds() == 1 ? "" : "s", travellers(plan),
      range_of(of_written(choice, volume.sent)), which, range_of(of_written(choice, volume.slots)), which,
      largest_share(plan));
}

std::string candidate_table(std::vector<Candidate> const& candidates, std::string const& strategy,
                            std::string const& layout) {
  std::vector<std::vector<std::string>> rows = {
      {"strategy", "layout", "predicted", "bytes, most", "memory, most", ""}};
  for (Candidate const& candidate : candidates) {
    bool const taken = candidate.strategy == strategy && candidate.layout == layout;
    if (!candidate.refused.empty()) {
      rows.push_back({candidate.strategy, candidate.layout, "-", "-", "-", "refused: " + candidate.refused});
      continue;
    }
    if (!candidate.weight) {
      bool const estimated = candidate.estimated_seconds.has_value();
      rows.push_back({candidate.strategy, candidate.layout,
                      format_seconds(candidate.estimated_seconds.value_or(candidate.least_seconds)), "-", "-",
                      taken       ? "<- taken, by estimate"
                      : estimated ? "estimate"
                                  : "or more: given up"});
      continue;
    }
    rows.push_back({candidate.strategy, candidate.layout, format_seconds(candidate.weight->seconds),
                    format_bytes(candidate.weight->bytes_max), format_bytes(candidate.weight->slots_bytes),
                    taken ? "<- taken" : ""});
  }
  return format_table(rows);
}

Json shape_json(Shape const& shape) {
  return {{"batch", shape.batch},         {"q_tokens", shape.q_tokens}, {"kv_tokens", shape.kv_tokens},
          {"q_heads", shape.q_heads},     {"kv_heads", shape.kv_heads}, {"head_dim", shape.head_dim},
          {"value_dim", shape.value_dim}, {"dtype", name(shape.dtype)}};
}

Json candidates_json(std::vector<Candidate> const& candidates) {
  Json list = Json::array();
  for (Candidate const& candidate : candidates) {
    bool const refused = !candidate.refused.empty();
    auto const& weight = candidate.weight;
    list.push_back({{"strategy", candidate.strategy},
                    {"layout", candidate.layout},
                    {"predicted_seconds", weight ? Json(weight->seconds) : Json(nullptr)},
                    {"least_seconds", refused ? Json(nullptr) : Json(candidate.least_seconds)},
                    {"estimated_seconds",
                     candidate.estimated_seconds ? Json(*candidate.estimated_seconds) : Json(nullptr)},
                    {"bytes_max", weight ? Json(weight->bytes_max) : Json(nullptr)},
                    {"slots_bytes", weight ? Json(weight->slots_bytes) : Json(nullptr)},
                    {"refused", refused ? Json(candidate.refused) : Json(nullptr)}});
  }
  return list;
}

void write_json(std::string const& target, Json const& json) {
  std::string const content = json.dump(2) + "\n";
  if (target != "-") return write_file(target, content);
  bool const written = std::fwrite(content.data(), 1, content.size(), stdout) == content.size();
  if (!written || std::fflush(stdout) != 0) throw FileError("--json -: stdout can't be written");
}

}  // namespace plait
