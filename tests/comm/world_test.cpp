// Worlds: places, gathers, barriers, and who is waited for how long.
#include "plait/world.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>

#include "liveness.hpp"
#include "plait/comm_error.hpp"

namespace {
std::atomic<bool> signs_of_life_fail = false;
}

/// In place of MPI's: what asks for a status is the receive of signs of life.
extern "C" int MPI_Test(MPI_Request* request, int* flag, MPI_Status* status) {
  if (signs_of_life_fail && status != MPI_STATUS_IGNORE) return MPI_ERR_OTHER;
  return PMPI_Test(request, flag, status);
}

namespace plait {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::span<std::byte const> bytes_of(std::string const& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(std::vector<std::byte> const& bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

TEST(World, KnowsWhereEachRankRuns) {
  World world(MPI_COMM_WORLD);
  ASSERT_EQ(world.places().size(), static_cast<std::size_t>(world.size()));
  EXPECT_EQ(world.place().rank, world.rank());
  EXPECT_EQ(world.place().pid, ::getpid());
  std::set<int> pids;
  for (Place const& place : world.places()) {  // a test job runs on one host
    EXPECT_EQ(place.host, world.place().host);
    EXPECT_EQ(place.node, 0);
    EXPECT_EQ(place.local_rank, place.rank);
    pids.insert(place.pid);
  }
  EXPECT_EQ(pids.size(), world.places().size());
}

TEST(World, GathersBytesOfAnyLength) {
  World world(MPI_COMM_WORLD);
  for (std::size_t const unit : {0, 1, 300000}) {
    std::string const mine(unit * static_cast<std::size_t>(world.rank()),
                           static_cast<char>('a' + world.rank()));
    auto const all = world.all_gather(bytes_of(mine), "a test");
    ASSERT_EQ(all.size(), static_cast<std::size_t>(world.size()));
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      EXPECT_EQ(text_of(all[rank]), std::string(unit * rank, static_cast<char>('a' + rank)));
    }
  }
}

TEST(World, BarrierWaitsForTheLast) {
  World world(MPI_COMM_WORLD);
  world.barrier("before");
  auto const start = Clock::now();
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(200ms);
  world.barrier("after");
  EXPECT_GE(Clock::now() - start, 150ms);
}

TEST(World, LivesBesideTheProgramsOwnTrafficAndOnParts) {
  World all(MPI_COMM_WORLD);
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, all.rank() % 2, -all.rank(), &part);  // in reverse order
  World half(part);
  int const peers = all.size() / 2 + (all.rank() % 2 == 0 ? all.size() % 2 : 0);
  EXPECT_EQ(half.size(), peers);
  int sum = all.rank();
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(MPI_IN_PLACE, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD, &request);
  std::string const mine = std::to_string(all.rank());
  auto const gathered = half.all_gather(bytes_of(mine), "a test");
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  EXPECT_EQ(sum, all.size() * (all.size() - 1) / 2);
  EXPECT_EQ(text_of(gathered[static_cast<std::size_t>(half.rank())]), mine);
  MPI_Comm_free(&part);
}

/// A rank that computes for longer than the timeout is alive: its communication thread says so.
TEST(World, ABusyRankIsWaitedFor) {
  World world(MPI_COMM_WORLD, {.timeout = 600ms});
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(1500ms);
  EXPECT_NO_THROW(world.barrier("a test"));
}

/// But not for ever: after `patience` timeouts the wait ends, and names who is missing.
TEST(World, ARankThatNeverComesIsNamed) {
  World world(MPI_COMM_WORLD, {.timeout = 250ms});
  if (world.size() == 1) GTEST_SKIP() << "one rank misses nobody";
  auto const start = Clock::now();
  if (world.rank() == world.size() - 1) {
    std::this_thread::sleep_for(Patience::patience * 250ms + 1s);
    return;
  }
  try {
    world.barrier("a test");
    ADD_FAILURE() << "nothing was thrown";
  } catch (PeerLost const& error) {
    std::string const message = error.what();
    std::string const missing =
        world.rank() == 0 ? "rank " + std::to_string(world.size() - 1) : std::string("rank 0");
    EXPECT_NE(message.find("a test: " + missing + " (host "), std::string::npos) << message;
    EXPECT_NE(message.find("is alive but has not taken part"), std::string::npos) << message;
  }
  EXPECT_LT(Clock::now() - start, 10s);
}

/// Nobody waits for the answers to questions, so an error there is told to who waits for the silent peer.
TEST(World, AnErrorOfASignOfLifeEndsTheWait) {
  World world(MPI_COMM_WORLD, {.timeout = 400ms});
  if (world.size() == 1) GTEST_SKIP() << "one rank asks nobody";
  world.barrier("before");
  signs_of_life_fail = true;
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(1s);
  try {
    world.barrier("a test");
    ADD_FAILURE() << "nothing was thrown";
  } catch (CommError const& error) {
    EXPECT_EQ(std::string(error.what()).rfind("MPI: ", 0), 0u) << error.what();
  }
  std::this_thread::sleep_for(1s);  // the last rank may have been late
  signs_of_life_fail = false;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval const& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(World, IdleWorldsLeaveTheCoresAlone) {
  World world(MPI_COMM_WORLD);
  world.barrier("before");
  std::this_thread::sleep_for(100ms);
  double const before = cpu_seconds();
  std::this_thread::sleep_for(1s);
  double const used = cpu_seconds() - before;
  if (world.rank() == 0) std::printf("an idle world uses %.2f%% of a core\n", 100.0 * used);
  EXPECT_LT(used, 0.2);  // far above what it is, far below spinning
  world.barrier("after");
}

}  // namespace
}  // namespace plait
