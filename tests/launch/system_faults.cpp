#include "system_faults.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace plait::testing_faults {

SystemFaults faults;

namespace {

/// Whether a transfer fails, with errno set.
bool transfer_fails(int error) {
  if (faults.interruptions > 0) {
    --faults.interruptions;
    errno = EINTR;
    return true;
  }
  errno = error;
  return error != 0;
}

std::size_t cut(std::size_t bytes) {
  ++faults.transfers;
  return faults.longest_transfer == 0 ? bytes : std::min(bytes, faults.longest_transfer);
}

}  // namespace
}  // namespace plait::testing_faults

using plait::testing_faults::cut;
using plait::testing_faults::faults;
using plait::testing_faults::transfer_fails;

extern "C" {

ssize_t pread(int file, void* target, size_t bytes, off_t offset) {
  if (transfer_fails(faults.read_error)) return -1;
  return syscall(SYS_pread64, file, target, cut(bytes), offset);
}

ssize_t pwrite(int file, void const* source, size_t bytes, off_t offset) {
  if (transfer_fails(faults.write_error)) return -1;
  return syscall(SYS_pwrite64, file, source, cut(bytes), offset);
}

int fsync(int file) {
  errno = faults.sync_error;
  return faults.sync_error != 0 ? -1 : static_cast<int>(syscall(SYS_fsync, file));
}

int fallocate(int file, int mode, off_t offset, off_t bytes) {
  errno = faults.reserve_error;
  return faults.reserve_error != 0 ? -1 : static_cast<int>(syscall(SYS_fallocate, file, mode, offset, bytes));
}
}
