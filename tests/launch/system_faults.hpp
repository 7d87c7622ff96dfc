// Faults in the system calls of the program that links system_faults.cpp: its pread, pwrite, fsync and
// fallocate stand in front of the C library's.
#pragma once

#include <cstddef>

namespace plait::testing_faults {

struct SystemFaults {
  int interruptions = 0;             ///< so many calls of pread and pwrite fail with EINTR first
  std::size_t longest_transfer = 0;  ///< pread and pwrite move at most this much; 0 = any
  int read_error = 0;                ///< errno of every pread; 0 = none. The others likewise
  int write_error = 0;
  int sync_error = 0;
  int reserve_error = 0;
  int transfers = 0;  ///< counts the calls of pread and pwrite that moved bytes
};

/// The faults in force; a test sets them and puts {} back.
extern SystemFaults faults;

}  // namespace plait::testing_faults
