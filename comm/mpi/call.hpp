// MPI calls checked by a function: a failure is a CommError that carries MPI's text and the place.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <string>

#include "plait/comm_error.hpp"
#include "plait/world.hpp"

namespace plait {

inline void check_mpi(int status, std::source_location at = std::source_location::current()) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw CommError(fmt::format("MPI: {} ({}:{})", std::string(text, static_cast<std::size_t>(length)),
                              at.file_name(), at.line()));
}

}  // namespace plait
