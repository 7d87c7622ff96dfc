// The flags of plait attend.
#pragma once

#include <optional>
#include <string>

#include "command_line.hpp"
#include "plait/simulate.hpp"
#include "plait/strategy.hpp"
#include "run_flags.hpp"

namespace plait {

struct AttendOptions {
  CommandLine line;  ///< for the mask flags, which need the input's shape
  std::string input;
  std::optional<std::string> output;
  std::string strategy;
  std::string layout;
  Reduce reduce = Reduce::p2p;
  Machine machine;  ///< on which plans are weighed
  RunOptions run;
  bool checks = false;
  std::optional<Index> check_rows = std::nullopt;  ///< absent = as many as are affordable
  std::optional<std::string> json;
  std::optional<std::string> trace;
};

[[nodiscard]] po::options_description attend_flags();
/// @throws UsageError
[[nodiscard]] AttendOptions parse_attend(Words const& words);

}  // namespace plait
