// The flags of plait attend.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "command_line.hpp"
#include "plait/slice.hpp"
#include "plait/transport_choice.hpp"

namespace plait {

struct AttendOptions {
  CommandLine line;  ///< for the mask flags, which need the input's shape
  std::string input;
  std::optional<std::string> output;
  std::string strategy;
  std::string layout;
  std::string device;
  bool share_gpu = false;
  TransportKind transport = TransportKind::automatic;
  int threads = 0;  ///< 0 = chosen from the cores and the ranks of the host
  bool checks = false;
  std::optional<Index> check_rows = std::nullopt;  ///< absent = as many as are affordable
  int repeat = 1;
  std::optional<std::string> json;
  std::optional<std::string> trace;
};

[[nodiscard]] po::options_description attend_flags();
/// @throws UsageError
[[nodiscard]] AttendOptions parse_attend(Words const& words);

/// --timeout, read leniently: it bounds also the exchange that finds out that flags are wrong.
[[nodiscard]] std::chrono::milliseconds timeout_of(Words const& words);

}  // namespace plait
