// The flags of plait study, and the problems that they span.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "plait/problem.hpp"
#include "plait/simulate.hpp"
#include "problem_flags.hpp"
#include "run_flags.hpp"

namespace plait {

/// What stays the same as ranks are added: the tokens in all, or the tokens of each rank.
enum class Scaling : std::uint8_t { strong, weak };
[[nodiscard]] std::string_view name(Scaling scaling);

/// The point whose timeline is drawn. An empty strategy: the fastest at these ranks; no ranks: the fewest
/// above one.
struct TimelinePoint {
  std::string strategy;
  int ranks = 0;
};

struct StudyOptions {
  CommandLine line;  ///< for the mask flags, which need token counts
  Scaling scaling = Scaling::strong;
  Index tokens = 0;  ///< in all (strong), or of each rank (weak)
  Shape shape;       ///< but for tokens (weak) and heads
  std::vector<HeadPair> heads;
  std::vector<int> ranks;  ///< ascending
  std::vector<std::string> strategies;
  std::string layout;
  Machine machine;
  RunOptions run;
  std::optional<std::string> csv;
  std::optional<std::string> json;
  std::optional<std::string> plots;
  TimelinePoint timeline;
};

[[nodiscard]] po::options_description study_flags();
/// @throws UsageError, InvalidProblem, FileError
[[nodiscard]] StudyOptions parse_study(Words const& words);

/// The problem of one point. In weak scaling --documents are those of one rank's tokens, repeated for each.
/// @throws UsageError, InvalidProblem, FileError
[[nodiscard]] Problem study_problem(StudyOptions const& options, HeadPair heads, int ranks);

/// The mask flags in short: "full", "causal", "causal + window 4K,0".
[[nodiscard]] std::string mask_name(CommandLine const& line);

/// "1,2,8..64": counts, and ranges that double, ascending and each once. @throws UsageError
[[nodiscard]] std::vector<int> parse_ranks(std::string_view list);
/// "64:8,1:1": pairs as --heads of the other subcommands has one. @throws UsageError
[[nodiscard]] std::vector<HeadPair> parse_heads(std::string_view list);

}  // namespace plait
