#include <fmt/format.h>
#include <fmt/ostream.h>

#include <sstream>

#include "log.hpp"
#include "subcommand.hpp"

namespace plait {

void print_help(std::string_view usage, po::options_description const& flags, std::string_view examples) {
  if (launched_rank().value_or(0) != 0) return;
  std::ostringstream listed;
  listed << flags;
  fmt::print(
      "Usage: {}\n{}\nExamples:\n{}\nExit codes: 0 done, 1 failed, 2 usage, 3 check failed, 75 a deadline "
      "passed or a peer was lost\n",
      usage, listed.str(), examples);
}

}  // namespace plait
