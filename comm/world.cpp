#include "plait/world.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "mpi/call.hpp"
#include "mpi/comm_thread.hpp"
#include "mpi/gathering.hpp"

namespace plait {
namespace {

/// Checked by the caller's thread, before there is another.
MPI_Comm usable(MPI_Comm communicator) {
  int initialised = 0;
  int finalised = 0;
  int provided = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised == 0 || finalised != 0) throw CommError("MPI must be initialised, and not yet finalised");
  MPI_Query_thread(&provided);
  if (provided != MPI_THREAD_MULTIPLE) {
    throw CommError(
        "MPI must be initialised with MPI_THREAD_MULTIPLE (MPI_Init_thread): a thread of its own talks to "
        "the other ranks while the caller computes");
  }
  return communicator;
}

std::vector<std::byte> bytes_of(std::string const& text) {
  auto const bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string own_place(int rank) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  return fmt::format("{} {} {}", rank, ::getpid(), host);
}

std::vector<Place> places_of(std::vector<std::vector<std::byte>> const& texts) {
  std::vector<Place> places;
  std::vector<std::string> hosts;
  std::vector<int> ranks_on;
  for (auto const& bytes : texts) {
    std::istringstream text(std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size()));
    Place& place = places.emplace_back();
    text >> place.rank >> place.pid >> place.host;
    auto const found = std::ranges::find(hosts, place.host);
    place.node = static_cast<int>(found - hosts.begin());
    if (found == hosts.end()) {
      hosts.push_back(place.host);
      ranks_on.push_back(0);
    }
    place.local_rank = ranks_on[static_cast<std::size_t>(place.node)]++;
  }
  return places;
}

}  // namespace

struct World::Impl {
  Impl(MPI_Comm communicator, WorldOptions options_in)
      : options(options_in), thread(usable(communicator), options_in.timeout) {
    places = places_of(gather(bytes_of(own_place(thread.rank())), "finding out where each rank runs"));
  }

  [[nodiscard]] std::string describe(int rank) const {
    if (places.empty()) return fmt::format("rank {}", rank);
    return fmt::format("rank {} (host {})", rank, places[static_cast<std::size_t>(rank)].host);
  }

  std::vector<std::vector<std::byte>> gather(std::vector<std::byte> mine, std::string const& what) {
    std::string const who = fmt::format("{}: {}", describe(thread.rank()), what);
    auto const gathering = std::make_shared<Gathering>(thread, thread.communicator(), std::move(mine), who,
                                                       [this](int peer) { return describe(peer); });
    thread.run(gathering);
    return gathering->take();
  }

  WorldOptions options;
  std::vector<Place> places;
  CommThread thread;
};

World::World(MPI_Comm communicator, WorldOptions options)
    : impl_(std::make_unique<Impl>(communicator, options)) {}
World::~World() = default;

int World::rank() const {
  return impl_->thread.rank();
}
int World::size() const {
  return impl_->thread.size();
}
std::vector<Place> const& World::places() const {
  return impl_->places;
}
Place const& World::place() const {
  return impl_->places[static_cast<std::size_t>(rank())];
}
std::string World::describe(int rank) const {
  return impl_->describe(rank);
}
std::chrono::milliseconds World::timeout() const {
  return impl_->options.timeout;
}
World::CommThread& World::thread() const {
  return impl_->thread;
}

std::vector<std::vector<std::byte>> World::all_gather(std::span<std::byte const> mine,
                                                      std::string const& what) const {
  return impl_->gather({mine.begin(), mine.end()}, what);
}

void World::barrier(std::string const& what) const {
  (void)impl_->gather({}, what);
}

void World::abort(int exit_code) const noexcept {
  // With a host cut off, MPI_Abort is one more exchange on which Open MPI's launcher was seen to hang. It
  // notices a rank that leaves without it, and the deadlines of the others pass too.
  if (impl_->thread.peer_lost()) ::_exit(exit_code);
  // It may not return either, so this process ends in any case.
  static constexpr auto grace = std::chrono::seconds(3);
  std::thread([exit_code] {
    std::this_thread::sleep_for(grace);
    ::_exit(exit_code);
  }).detach();
  MPI_Abort(impl_->thread.communicator(), exit_code);
  ::_exit(exit_code);
}

}  // namespace plait
