// The problem on the command line, as numbers; and where it lies and who computes it.
#pragma once

#include "command_line.hpp"
#include "plait/problem.hpp"
#include "plait/simulate.hpp"
#include "plait/strategy.hpp"

namespace plait {

/// Query heads, and key/value heads, which divide them.
struct HeadPair {
  Index q = 1;
  Index kv = 1;
  friend bool operator==(HeadPair, HeadPair) = default;
};
/// "64:8", query over key/value heads; one number alone stands for both. @throws UsageError that names
/// --heads
[[nodiscard]] HeadPair parse_head_pair(std::string const& pair);

/// --batch, --tokens, --kv-tokens, --heads, --kv-heads, --dim, --value-dim, --dtype.
[[nodiscard]] po::options_description shape_flags();
/// @throws UsageError
[[nodiscard]] Shape parse_shape(CommandLine const& line);

/// The mask flags and --scale, put to a shape. @throws UsageError, InvalidProblem, FileError
[[nodiscard]] Problem parse_problem(CommandLine const& line, Shape const& shape);

/// --strategy, --layout, --reduce and --scale, with what the strategies say of themselves.
void add_plan_flags(po::options_description& flags);
/// @throws UsageError on a name that does not exist
[[nodiscard]] std::string parse_strategy(CommandLine const& line);
[[nodiscard]] std::string parse_layout(CommandLine const& line);
[[nodiscard]] Reduce parse_reduce(CommandLine const& line);

/// --machine, and what may be changed of it: --fold-rate, --bandwidth, --latency, --ranks-per-node.
[[nodiscard]] po::options_description machine_flags();
/// @throws UsageError
[[nodiscard]] Machine parse_machine(CommandLine const& line);

}  // namespace plait
