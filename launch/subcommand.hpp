// The subcommands: one function each, in the file of its name.
#pragma once

#include <memory>

#include "command_line.hpp"
#include "exit_code.hpp"
#include "job.hpp"

namespace plait {

/// One thing that the program does.
struct Subcommand {
  char const* name;
  char const* summary;
  /// @param words  what follows the subcommand's name
  /// @param job    empty; a subcommand that speaks MPI puts the job there, so that the one catch in main can
  ///               end it
  ExitCode (*run)(Words const& words, std::unique_ptr<Job>& job);
};

ExitCode attend(Words const& words, std::unique_ptr<Job>& job);
ExitCode plan(Words const& words, std::unique_ptr<Job>& job);
ExitCode calibrate(Words const& words, std::unique_ptr<Job>& job);
ExitCode study(Words const& words, std::unique_ptr<Job>& job);
ExitCode generate(Words const& words, std::unique_ptr<Job>& job);
ExitCode info(Words const& words, std::unique_ptr<Job>& job);

/// Prints a subcommand's help on stdout, on one rank of a launched job: usage, flags, examples, exit codes.
void print_help(std::string_view usage, po::options_description const& flags, std::string_view examples);

}  // namespace plait
