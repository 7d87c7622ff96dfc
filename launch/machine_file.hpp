// Machines as JSON: what plait calibrate writes and --machine reads.
#pragma once

#include <string>

#include "plait/machine.hpp"
#include "report.hpp"

namespace plait {

[[nodiscard]] Json machine_json(Machine const& machine);

/// The machine that comes with Plait under this name, or the one in the file of this name.
/// @throws FileError naming the file and what in it is missing, unknown or of the wrong kind; InvalidProblem
/// if a number cannot be, or if there is neither such a machine nor such a file
[[nodiscard]] Machine load_machine(std::string const& name);

}  // namespace plait
