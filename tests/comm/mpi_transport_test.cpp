// The MPI transport: what arrives is what was sent, and what is not as it should be is told.
#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "plait/comm_error.hpp"
#include "transport.hpp"
#include "transport_case.hpp"

namespace plait {
namespace {

using namespace std::chrono_literals;
using namespace plait::test;

/// Every rank sends to the next one: with one rank, to itself.
TEST(MpiTransport, RingOfAllSizes) {
  World world(MPI_COMM_WORLD);
  std::mt19937 random(static_cast<unsigned>(world.rank()) + 1);
  for (std::size_t const chunk : {std::size_t{100}, default_chunk_bytes}) {
    auto const transport = make_mpi_transport(world, chunk);
    std::uint64_t moved = 0;
    for (std::size_t const size : {0, 1, 99, 100, 101, 5000, 100000}) {
      Bytes out = filled(static_cast<std::uint64_t>(world.rank()), size);
      Bytes in(size);
      auto const from = neighbour(world, -1);
      transport->start({.round = size,
                        .sends = {{.peer = neighbour(world, 1),
                                   .block = static_cast<std::uint64_t>(world.rank()),
                                   .pieces = random_cut({out.data(), size}, random)}},
                        .receives = {{.peer = from,
                                      .block = static_cast<std::uint64_t>(from),
                                      .pieces = random_cut({in.data(), size}, random)}}},
                       nullptr);
      transport->finish();
      auto const flights = transport->take_flights();
      EXPECT_EQ(in, filled(static_cast<std::uint64_t>(from), size))
          << size << " bytes in chunks of " << chunk;
      ASSERT_EQ(flights.size(), 2u);
      for (Flight const& flight : flights) EXPECT_LE(flight.start, flight.end);
      moved += size;
    }
    Traffic const traffic = transport->traffic();
    for (int peer = 0; peer < world.size(); ++peer) {
      auto const p = static_cast<std::size_t>(peer);
      EXPECT_EQ(traffic.sent[p], peer == neighbour(world, 1) ? moved : 0);
      EXPECT_EQ(traffic.received[p], peer == neighbour(world, -1) ? moved : 0);
    }
  }
}

TEST(MpiTransport, RandomExchanges) {
  World world(MPI_COMM_WORLD);
  auto const transport = make_mpi_transport(world, 1000);
  std::mt19937 random(9);
  std::mt19937 cuts(static_cast<unsigned>(world.rank()) + 77);
  std::vector<std::uint64_t> sent(static_cast<std::size_t>(world.size()));
  for (std::uint64_t round = 0; round < 30; ++round) {
    std::vector<Bytes> memory;
    std::vector<std::pair<std::size_t, std::uint64_t>> arriving;  // memory and block
    Exchange exchange{.round = round, .sends = {}, .receives = {}};
    for (RandomMessage const& message : random_messages(world.size(), 4000, random)) {
      if (message.from == world.rank()) {
        Bytes& out = memory.emplace_back(filled(message.block, message.bytes));
        exchange.sends.push_back({message.to, message.block, random_cut({out.data(), out.size()}, cuts)});
        sent[static_cast<std::size_t>(message.to)] += message.bytes;
      }
      if (message.to == world.rank()) {
        Bytes& in = memory.emplace_back(message.bytes);
        exchange.receives.push_back({message.from, message.block, random_cut({in.data(), in.size()}, cuts)});
        arriving.emplace_back(memory.size() - 1, message.block);
      }
    }
    if (exchange.sends.empty() && exchange.receives.empty()) continue;
    transport->start(std::move(exchange), nullptr);
    transport->finish();
    for (auto const& [at, block] : arriving) EXPECT_EQ(memory[at], filled(block, memory[at].size()));
  }
  EXPECT_EQ(transport->traffic().sent, sent);
}

TEST(MpiTransport, SeveralAtOnceFromSeveralThreads) {
  World world(MPI_COMM_WORLD);
  auto const a = make_mpi_transport(world, 1000);
  auto const b = make_mpi_transport(world, 1000);
  auto const ring = [&](Transport& transport, std::uint64_t salt) {
    for (std::uint64_t round = 0; round < 50; ++round) {
      if (round % 10 == 0) transport.barrier("a test");
      auto const from = neighbour(world, -1);
      Bytes out = filled(salt + static_cast<std::uint64_t>(world.rank()), 3000);
      Bytes in(3000);
      transport.start({.round = round,
                       .sends = {{neighbour(world, 1), salt, {{out.data(), out.size()}}}},
                       .receives = {{from, salt, {{in.data(), in.size()}}}}},
                      nullptr);
      transport.finish();
      EXPECT_EQ(in, filled(salt + static_cast<std::uint64_t>(from), 3000));
    }
  };
  auto other = std::async(std::launch::async, [&] { ring(*b, 500); });
  ring(*a, 20);
  other.get();
}

/// What a receiver hears of a message that is not the one it expects. One rank sends to itself.
std::string complaint(std::size_t sent_bytes, std::size_t expected_bytes, std::uint64_t sent_block,
                      std::uint64_t expected_block) {
  World world(MPI_COMM_SELF, {.timeout = 500ms});
  auto const transport = make_mpi_transport(world, 1000);
  transport->name_blocks([](std::uint64_t block) { return "block number " + std::to_string(block); });
  // A failed exchange may be written to for as long as the process lives.
  auto const memory = std::make_shared<std::pair<Bytes, Bytes>>(Bytes(sent_bytes), Bytes(expected_bytes));
  transport->start({.round = 3,
                    .sends = {{0, sent_block, {{memory->first.data(), sent_bytes}}}},
                    .receives = {{0, expected_block, {{memory->second.data(), expected_bytes}}}}},
                   memory);
  try {
    transport->finish();
  } catch (CommError const& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(MpiTransport, AMessageThatIsNotTheExpectedOneIsNamed) {
  std::string message = complaint(10, 10, 4, 5);
  EXPECT_NE(message.find("rank 0 (host "), std::string::npos) << message;
  EXPECT_NE(message.find("round 3: receiving block number 5 from rank 0"), std::string::npos) << message;
  EXPECT_NE(message.find("the message is number 0 from there, block number 4 in round 3, 10 bytes"),
            std::string::npos)
      << message;
  message = complaint(10, 20, 4, 4);
  EXPECT_NE(message.find("block number 4 in round 3, 10 bytes; expected number 0 in round 3, 20 bytes"),
            std::string::npos)
      << message;
  message = complaint(20, 10, 4, 4);
  EXPECT_NE(message.find("longer than"), std::string::npos) << message;
  message = complaint(500, 2500, 4, 4);  // the message ends within the first chunk
  EXPECT_NE(message.find("500 bytes; expected"), std::string::npos) << message;
}

TEST(MpiTransport, APeerThatIsBusyIsWaitedFor) {
  World world(MPI_COMM_WORLD, {.timeout = 600ms});
  auto const transport = make_mpi_transport(world);
  Bytes out = filled(1, 100);
  Bytes in(100);
  if (world.rank() == 0) std::this_thread::sleep_for(1500ms);  // "computing"
  transport->start({.round = 0,
                    .sends = {{neighbour(world, 1), 1, {{out.data(), 100}}}},
                    .receives = {{neighbour(world, -1), 1, {{in.data(), 100}}}}},
                   nullptr);
  EXPECT_NO_THROW(transport->finish());
  EXPECT_EQ(in, out);
}

TEST(MpiTransport, APeerThatNeverSendsIsNamed) {
  World world(MPI_COMM_WORLD, {.timeout = 250ms});
  auto const transport = make_mpi_transport(world);
  transport->name_blocks([](std::uint64_t block) { return "kv " + std::to_string(block); });
  auto const memory = std::make_shared<Bytes>(64);
  transport->start({.round = 7, .sends = {}, .receives = {{neighbour(world, 1), 12, {{memory->data(), 64}}}}},
                   memory);
  try {
    transport->finish();
    ADD_FAILURE() << "nothing was thrown";
  } catch (PeerLost const& error) {
    std::string const message = error.what();
    std::string const peer = "rank " + std::to_string(neighbour(world, 1)) + " (host ";
    EXPECT_EQ(message.rfind("rank " + std::to_string(world.rank()) + " (host ", 0), 0u) << message;
    EXPECT_NE(message.find(", round 7: " + peer), std::string::npos) << message;
    EXPECT_NE(message.find("while receiving kv 12 from " + peer), std::string::npos) << message;
    EXPECT_NE(message.find("(64 of 64 bytes outstanding)"), std::string::npos) << message;
  }
  // Others may still be in their wait, and count on answers.
  std::this_thread::sleep_for(1s);
}

TEST(MpiTransport, OutOfOrderUseIsALogicError) {
  World world(MPI_COMM_SELF);
  auto const transport = make_mpi_transport(world);
  EXPECT_THROW(transport->finish(), std::logic_error);
  transport->start({}, nullptr);
  EXPECT_THROW(transport->start({}, nullptr), std::logic_error);
  transport->finish();
  EXPECT_TRUE(transport->take_flights().empty());
}

}  // namespace
}  // namespace plait
