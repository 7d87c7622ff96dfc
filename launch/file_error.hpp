// What is wrong with a file: the one error type of everything that reads or writes tensor files.
#pragma once

#include <stdexcept>

namespace plait {

/// The message names the file, the tensor and the value, and what would be accepted or what the system said.
class FileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace plait
