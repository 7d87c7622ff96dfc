// Staging, without a GPU: the queues of copies are the test's own, and the "device's" memory is the host's.
#include "staging/staged_transport.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <deque>
#include <functional>
#include <thread>

#include "plait/comm_error.hpp"
#include "plait/mpi_transport.hpp"
#include "transport_case.hpp"

namespace plait {
namespace {

using namespace std::chrono_literals;
using namespace plait::test;

/// When the copies of a test's queue run: as soon, or as late as their order allows. What is not waited for
/// as it should be shows as wrong bytes with one of the two.
enum class Pace : std::uint8_t { eager, late };

class TestCopies : public CopyQueue {
 public:
  /// What a test sees of a queue that its transport owns.
  struct Watch {
    Pace pace = Pace::eager;
    std::weak_ptr<std::byte> memory;
    std::size_t memory_bytes = 0;
    std::size_t followed = 0;
    std::function<void()> work;  ///< runs the copies that the device's work waits for
  };

  explicit TestCopies(Watch& watch) : watch_(watch) {
    watch_.work = [this] { run_to(led_); };
  }

  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    std::shared_ptr<std::byte> memory(new std::byte[bytes], std::default_delete<std::byte[]>());
    watch_.memory = memory;
    watch_.memory_bytes = bytes;
    return memory;
  }
  void follow_work() override { ++watch_.followed; }
  void lead_work() override { led_ = queued_; }
  void copy(Copy direction, std::vector<StridedRegion> const& pieces, std::byte* buffer) override {
    queue_.emplace_back([=] {
      std::byte* at = buffer;
      for (Region const& piece : test::regions_of(pieces)) {
        bool const gathers = direction == Copy::gather;
        if (piece.bytes > 0) std::memcpy(gathers ? at : piece.data, gathers ? piece.data : at, piece.bytes);
        at += piece.bytes;
      }
    });
    ++queued_;
    if (watch_.pace == Pace::eager) run_to(queued_);
  }
  void set(std::size_t mark) override { marks_.at(mark) = queued_; }
  void await(std::size_t mark) override { run_to(marks_.at(mark)); }
  void await_all() override { run_to(queued_); }

 private:
  void run_to(std::size_t count) {
    for (; done_ < count; ++done_) {
      queue_.front()();
      queue_.pop_front();
    }
  }

  Watch& watch_;
  std::deque<std::function<void()>> queue_;
  std::size_t queued_ = 0;
  std::size_t done_ = 0;
  std::size_t led_ = 0;
  std::array<std::size_t, 2> marks_{};
};

/// A staged transport over MPI whose chunks are short, so that messages have many.
struct Staged {
  static constexpr std::size_t chunk_bytes = 100;

  Staged(World const& world, Pace pace) {
    out.pace = in.pace = pace;
    transport = make_staged_transport(make_mpi_transport(world), std::make_unique<TestCopies>(out),
                                      std::make_unique<TestCopies>(in), chunk_bytes);
  }

  TestCopies::Watch out;
  TestCopies::Watch in;
  std::unique_ptr<Transport> transport;
};

class StagedTransport : public testing::TestWithParam<Pace> {};

/// More chunks than buffers, fewer, none; scattered differently on both sides.
TEST_P(StagedTransport, RingOfAllSizes) {
  World world(MPI_COMM_WORLD);
  Staged staged(world, GetParam());
  std::mt19937 random(static_cast<unsigned>(world.rank()) + 1);
  std::uint64_t moved = 0;
  for (std::size_t const size : {0, 1, 99, 100, 101, 199, 200, 201, 5000, 12345, 0, 150}) {
    Bytes out = filled(static_cast<std::uint64_t>(world.rank()) + size, size);
    Bytes in(size);
    auto const from = neighbour(world, -1);
    staged.transport->start({.round = size,
                             .sends = {{neighbour(world, 1), 7, random_cut({out.data(), size}, random)}},
                             .receives = {{from, 7, random_cut({in.data(), size}, random)}}},
                            nullptr);
    staged.transport->finish();
    std::ranges::fill(out, std::byte{0xee});  // later work may overwrite what was sent
    staged.in.work();
    EXPECT_EQ(in, filled(static_cast<std::uint64_t>(from) + size, size));
    staged.transport->complete("a test");
    std::vector<Flight> const flights = staged.transport->take_flights();
    ASSERT_EQ(flights.size(), 2u);
    for (Flight const& flight : flights) {
      EXPECT_EQ(flight.round, size);
      EXPECT_LE(flight.start, flight.end);
    }
    moved += size;
  }
  EXPECT_EQ(staged.transport->traffic().sent[static_cast<std::size_t>(neighbour(world, 1))], moved);
  EXPECT_EQ(staged.transport->traffic().received[static_cast<std::size_t>(neighbour(world, -1))], moved);
  EXPECT_EQ(staged.out.followed, 12u);
  EXPECT_EQ(staged.in.followed, 12u);
  EXPECT_LE(staged.in.memory_bytes, 2 * Staged::chunk_bytes);
  EXPECT_LE(staged.out.memory_bytes, 2 * Staged::chunk_bytes);
}

/// Buffers that change their places from round to round, and ranks that only receive: nothing but the marks
/// keeps a late copy from finding its buffer overwritten.
TEST_P(StagedTransport, RandomExchangesThatAreNotWaitedFor) {
  World world(MPI_COMM_WORLD);
  Staged staged(world, GetParam());
  std::mt19937 random(5);
  std::mt19937 cuts(static_cast<unsigned>(world.rank()) + 77);
  std::vector<std::uint64_t> received(static_cast<std::size_t>(world.size()));
  std::deque<Bytes> memory;                                      // stays where it is
  std::vector<std::pair<Bytes const*, std::uint64_t>> arriving;  // and the block
  for (std::uint64_t round = 0; round < 60; ++round) {
    Exchange exchange{.round = round, .sends = {}, .receives = {}};
    for (RandomMessage const& message : random_messages(world.size(), 700, random)) {
      std::uint64_t const block = message.block + 16 * round;
      if (message.from == world.rank()) {
        Bytes& out = memory.emplace_back(filled(block, message.bytes));
        exchange.sends.push_back({message.to, block, random_cut({out.data(), out.size()}, cuts)});
      }
      if (message.to == world.rank()) {
        Bytes& in = memory.emplace_back(message.bytes);
        exchange.receives.push_back({message.from, block, random_cut({in.data(), in.size()}, cuts)});
        arriving.emplace_back(&in, block);
        received[static_cast<std::size_t>(message.from)] += message.bytes;
      }
    }
    staged.transport->start(std::move(exchange), nullptr);
    staged.transport->finish();
  }
  staged.transport->complete("a test");
  for (auto const& [in, block] : arriving) EXPECT_EQ(*in, filled(block, in->size())) << "block " << block;
  EXPECT_EQ(staged.transport->traffic().received, received);
}

/// A message that is not the expected one fails with its block's name, and the buffers live on: a request
/// that is still posted may write to them.
TEST_P(StagedTransport, WrongLengthsAreNamedAndTheBuffersKept) {
  World world(MPI_COMM_SELF, {.timeout = 500ms});
  for (auto const& [sent, expected] : {std::pair<std::size_t, std::size_t>{50, 60}, {60, 50}, {350, 320}}) {
    auto staged = std::make_unique<Staged>(world, GetParam());
    staged->transport->name_blocks([](std::uint64_t block) { return "kv " + std::to_string(block); });
    Bytes out = filled(4, sent);
    Bytes in(expected);
    staged->transport->start(
        {.round = 3, .sends = {{0, 4, {{out.data(), sent}}}}, .receives = {{0, 4, {{in.data(), expected}}}}},
        nullptr);
    try {
      staged->transport->finish();
      ADD_FAILURE() << "nothing was thrown";
    } catch (CommError const& error) {
      std::string const message = error.what();
      EXPECT_EQ(message.rfind("rank 0 (host ", 0), 0u) << message;
      EXPECT_NE(message.find("round 3: receiving kv 4 from rank 0"), std::string::npos) << message;
    }
    auto const buffers = {staged->out.memory, staged->in.memory};
    staged.reset();
    for (auto const& memory : buffers) EXPECT_FALSE(memory.expired());
  }
}

TEST_P(StagedTransport, APeerThatNeverSendsIsNamed) {
  World world(MPI_COMM_WORLD, {.timeout = 250ms});
  Staged staged(world, GetParam());
  Bytes in(250);
  staged.transport->start(
      {.round = 7, .sends = {}, .receives = {{neighbour(world, 1), 12, {{in.data(), 250}}}}}, nullptr);
  try {
    staged.transport->finish();
    ADD_FAILURE() << "nothing was thrown";
  } catch (PeerLost const& error) {
    std::string const message = error.what();
    EXPECT_NE(message.find("while receiving block 12 from rank " + std::to_string(neighbour(world, 1))),
              std::string::npos)
        << message;
  }
  // Others may still be in their wait, and count on answers.
  std::this_thread::sleep_for(1s);
}

TEST_P(StagedTransport, OutOfOrderUseIsALogicError) {
  World world(MPI_COMM_SELF);
  Staged staged(world, GetParam());
  EXPECT_THROW(staged.transport->finish(), std::logic_error);
  staged.transport->start({}, nullptr);
  EXPECT_THROW(staged.transport->start({}, nullptr), std::logic_error);
  staged.transport->finish();
  EXPECT_TRUE(staged.transport->take_flights().empty());
}

INSTANTIATE_TEST_SUITE_P(Pace, StagedTransport, testing::Values(Pace::eager, Pace::late),
                         [](auto const& pace) { return pace.param == Pace::eager ? "Eager" : "Late"; });

}  // namespace
}  // namespace plait
