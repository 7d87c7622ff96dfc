#include "mailboxes.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "plait/comm_error.hpp"

namespace plait {
namespace {

constexpr std::size_t cache_line = 64;

[[noreturn]] void fail(std::string const& what, int code) {
  throw CommError(fmt::format("{}: {}", what, std::strerror(code)));
}

std::string new_name() {
  std::random_device random;
  return fmt::format("/plait-{}-{:08x}{:08x}", ::getpid(), random(), random());
}

std::byte* map(int file, std::size_t bytes, std::string const& name) {
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  int const code = errno;
  ::close(file);
  if (data == MAP_FAILED) fail("mapping shared memory " + name, code);
  return static_cast<std::byte*>(data);
}

}  // namespace

NamedMemory NamedMemory::create(std::size_t bytes) {
  std::string const name = new_name();
  int const file = ::shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) fail("making shared memory " + name, errno);
  // Otherwise a full /dev/shm is a bus error when it is written.
  if (int const code = ::posix_fallocate(file, 0, static_cast<off_t>(bytes)); code != 0) {
    ::close(file);
    ::shm_unlink(name.c_str());
    fail(fmt::format("making {} KiB of shared memory (/dev/shm)", bytes / 1024), code);
  }
  return {name, map(file, bytes, name), bytes, true};
}

NamedMemory NamedMemory::open(std::string const& name, std::size_t bytes) {
  int const file = ::shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) fail("opening another rank's shared memory " + name, errno);
  return {name, map(file, bytes, name), bytes, false};
}

NamedMemory::NamedMemory(NamedMemory&& other) noexcept
    : name_(std::move(other.name_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(other.bytes_),
      owned_(std::exchange(other.owned_, false)) {}

NamedMemory::~NamedMemory() {
  forget_name();
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

void NamedMemory::forget_name() {
  if (std::exchange(owned_, false)) ::shm_unlink(name_.c_str());
}

/// Notes of one writer to one reader: each its length, then its bytes, in a ring.
struct Mailboxes::Box {
  static constexpr std::size_t capacity = 4 * most_note_bytes;
  using Length = std::uint32_t;

  alignas(cache_line) std::atomic<std::uint64_t> written;  ///< bytes ever
  alignas(cache_line) std::atomic<std::uint64_t> read;     ///< of them
  alignas(cache_line) std::byte ring[capacity];

  void put(std::uint64_t at, std::span<std::byte const> bytes) {
    std::size_t const begin = at % capacity;
    std::size_t const first = std::min(bytes.size(), capacity - begin);
    std::memcpy(ring + begin, bytes.data(), first);
    std::memcpy(ring, bytes.data() + first, bytes.size() - first);
  }
  void get(std::uint64_t at, std::span<std::byte> bytes) const {
    std::size_t const begin = at % capacity;
    std::size_t const first = std::min(bytes.size(), capacity - begin);
    std::memcpy(bytes.data(), ring + begin, first);
    std::memcpy(bytes.data() + first, ring, bytes.size() - first);
  }
};

/// Where a rank's boxes begin.
struct Mailboxes::Hall {
  alignas(cache_line) std::atomic<std::uint64_t> barriers;  ///< that it has come to
};

// Other processes see the same numbers only if they are changed without locks.
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

Mailboxes::Mailboxes(int ranks, int rank)
    : ranks_(ranks),
      rank_(rank),
      own_(NamedMemory::create(sizeof(Hall) + static_cast<std::size_t>(ranks) * sizeof(Box))),
      waiting_(static_cast<std::size_t>(ranks)) {}

Mailboxes::~Mailboxes() = default;

void Mailboxes::open(std::vector<std::string> const& names) {
  for (int rank = 0; rank < ranks_; ++rank) {
    auto& other = others_.emplace_back();
    if (rank == rank_) continue;
    other = std::make_unique<NamedMemory>(
        NamedMemory::open(names[static_cast<std::size_t>(rank)],
                          sizeof(Hall) + static_cast<std::size_t>(ranks_) * sizeof(Box)));
  }
}

Mailboxes::Hall& Mailboxes::hall_of(int owner) const {
  NamedMemory const& memory = owner == rank_ ? own_ : *others_[static_cast<std::size_t>(owner)];
  return *reinterpret_cast<Hall*>(memory.data());
}

Mailboxes::Box& Mailboxes::box_of(int owner, int writer) const {
  return reinterpret_cast<Box*>(&hall_of(owner) + 1)[writer];
}

void Mailboxes::post(int to, std::span<std::byte const> note) {
  if (note.size() > most_note_bytes)
    throw CommError(fmt::format("a note of {} bytes is too long", note.size()));
  auto& waiting = waiting_[static_cast<std::size_t>(to)];
  if (waiting.empty() && try_post(to, note)) return;
  waiting.emplace_back(note.begin(), note.end());
}

bool Mailboxes::send_waiting() {
  bool all = true;
  for (int to = 0; to < ranks_; ++to) {
    auto& waiting = waiting_[static_cast<std::size_t>(to)];
    while (!waiting.empty() && try_post(to, waiting.front())) waiting.pop_front();
    all = all && waiting.empty();
  }
  return all;
}

bool Mailboxes::try_post(int to, std::span<std::byte const> note) {
  Box& box = box_of(to, rank_);
  auto const length = static_cast<Box::Length>(note.size());
  std::uint64_t const at = box.written.load(std::memory_order_relaxed);
  std::uint64_t const used = at - box.read.load(std::memory_order_acquire);
  if (used + sizeof length + note.size() > Box::capacity) return false;
  box.put(at, std::as_bytes(std::span(&length, 1)));
  box.put(at + sizeof length, note);
  box.written.store(at + sizeof length + note.size(), std::memory_order_release);
  return true;
}

bool Mailboxes::take(int from, std::vector<std::byte>& note) {
  Box& box = box_of(rank_, from);
  std::uint64_t const at = box.read.load(std::memory_order_relaxed);
  if (box.written.load(std::memory_order_acquire) == at) return false;
  Box::Length length = 0;
  box.get(at, std::as_writable_bytes(std::span(&length, 1)));
  note.resize(length);
  box.get(at + sizeof length, note);
  box.read.store(at + sizeof length + length, std::memory_order_release);
  return true;
}

std::uint64_t Mailboxes::come_to_barrier() {
  hall_of(rank_).barriers.store(++barriers_, std::memory_order_release);
  return barriers_;
}

bool Mailboxes::has_come(int rank, std::uint64_t barrier) const {
  return hall_of(rank).barriers.load(std::memory_order_acquire) >= barrier;
}

}  // namespace plait
