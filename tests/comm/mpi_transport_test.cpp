// The MPI transport: what arrives is what was sent, and what is not as it should be is told.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "liveness.hpp"
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

/// Rows with gaps go as a stream of bytes, in chunks that end anywhere, and arrive as rows, or in pieces.
TEST(MpiTransport, RowsWithGaps) {
  World world(MPI_COMM_WORLD);
  std::mt19937 random(static_cast<unsigned>(world.rank()) + 1);
  constexpr std::size_t row_bytes = 24;
  constexpr std::size_t rows = 50;
  int const from = neighbour(world, -1);
  Bytes const expected = [&] {
    Bytes memory = filled(static_cast<std::uint64_t>(from), 2 * rows * row_bytes);
    return stream_of({rows_of({memory.data(), memory.size()}, row_bytes)});
  }();
  for (std::size_t const chunk : {std::size_t{100}, default_chunk_bytes}) {
    for (bool const into_rows : {false, true}) {
      auto const transport = make_mpi_transport(world, chunk);
      Bytes out = filled(static_cast<std::uint64_t>(world.rank()), 2 * rows * row_bytes);
      Bytes in(2 * rows * row_bytes, std::byte{0x11});
      auto const pieces = into_rows ? std::vector{rows_of({in.data(), in.size()}, row_bytes)}
                                    : random_cut({in.data(), rows * row_bytes}, random);
      transport->start({.round = 0,
                        .sends = {{neighbour(world, 1), 7, {rows_of({out.data(), out.size()}, row_bytes)}}},
                        .receives = {{from, 7, pieces}}},
                       nullptr);
      transport->finish();
      Bytes untouched = in;
      for (Region const& region : regions_of(pieces)) {
        std::fill_n(untouched.begin() + (region.data - in.data()), region.bytes, std::byte{0x11});
      }
      EXPECT_EQ(stream_of(pieces), expected) << "chunks of " << chunk;
      EXPECT_EQ(untouched, Bytes(in.size(), std::byte{0x11})) << "chunks of " << chunk;
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

/// What an exchange would say of a lost peer it says in its caller's words: which are gone once the caller
/// is.
TEST(MpiTransport, AnExchangeThatIsNotFinishedCallsNobody) {
  constexpr auto timeout = 50ms;
  std::atomic<int> calls = 0;
  World world(MPI_COMM_SELF, {.timeout = timeout});
  auto const memory = std::make_shared<Bytes>(64);
  {
    auto const transport = make_mpi_transport(world);
    transport->name_blocks([&](std::uint64_t) {
      ++calls;
      return "a block";
    });
    transport->start({.round = 1, .sends = {}, .receives = {{0, 5, {{memory->data(), 64}}}}}, memory);
  }
  std::this_thread::sleep_for((Patience::patience + 6) * timeout);
  EXPECT_EQ(calls, 0);
  EXPECT_GT(memory.use_count(), 1) << "the receive is still posted";
}

/// (sum, product modulo 2^64) of pairs of numbers: an operator that no MPI knows.
Operator const sum_and_product{.element_bytes = 2 * sizeof(std::uint64_t),
                               .combine = [](std::byte const* from, std::byte* into, std::size_t count) {
                                 for (std::size_t i = 0; i < 2 * count; ++i) {
                                   std::uint64_t a = 0;
                                   std::uint64_t b = 0;
                                   std::memcpy(&a, from + i * sizeof a, sizeof a);
                                   std::memcpy(&b, into + i * sizeof b, sizeof b);
                                   b = i % 2 == 0 ? a + b : a * b;
                                   std::memcpy(into + i * sizeof b, &b, sizeof b);
                                 }
                               }};

/// Uneven shares, some empty; several reductions in a row; each element's closed form.
TEST(MpiTransport, ReducesWithAnOperatorOfItsOwn) {
  World world(MPI_COMM_WORLD);
  auto const transport = make_mpi_transport(world);
  auto const ranks = static_cast<std::uint64_t>(world.size());
  auto const mine = static_cast<std::uint64_t>(world.rank());
  std::uint64_t received = 0;
  for (std::uint64_t const scale : {1, 0, 500}) {
    std::vector<std::size_t> counts;
    std::size_t all = 0;
    for (std::uint64_t rank = 0; rank < ranks; ++rank) all += counts.emplace_back(rank % 3 * scale);
    // Element e of rank r: (r + e, 2 · r + 3 · e + 1).
    std::vector<std::uint64_t> parts;
    for (std::uint64_t e = 0; e < all; ++e) parts.insert(parts.end(), {mine + e, 2 * mine + 3 * e + 1});
    std::vector<std::uint64_t> result(2 * counts[mine]);
    transport->reduce_scatter({.round = scale,
                               .what = "a test's reduction",
                               .counts = counts,
                               .parts = {reinterpret_cast<std::byte*>(parts.data()), parts.size() * 8},
                               .result = {reinterpret_cast<std::byte*>(result.data()), result.size() * 8}},
                              sum_and_product, nullptr);
    std::uint64_t first = 0;
    for (std::size_t rank = 0; rank < mine; ++rank) first += counts[rank];
    for (std::uint64_t e = 0; e < counts[mine]; ++e) {
      std::uint64_t product = 1;
      for (std::uint64_t rank = 0; rank < ranks; ++rank) product *= 2 * rank + 3 * (first + e) + 1;
      EXPECT_EQ(result[2 * e], ranks * (ranks - 1) / 2 + ranks * (first + e));
      EXPECT_EQ(result[2 * e + 1], product);
    }
    received += 16 * counts[mine];
  }
  for (std::uint64_t peer = 0; peer < ranks; ++peer) {
    EXPECT_EQ(transport->traffic().sent[peer], peer == mine ? 0 : 16 * (peer % 3) * 501);
    EXPECT_EQ(transport->traffic().received[peer], peer == mine ? 0 : received);
  }
}

/// MPI's collective knows no deadline; the wait for it does.
TEST(MpiTransport, AReductionThatNotAllTakePartInEnds) {
  World world(MPI_COMM_WORLD, {.timeout = 100ms});
  if (world.size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  auto const transport = make_mpi_transport(world);
  if (world.rank() > 0) {
    std::vector<std::size_t> const counts(static_cast<std::size_t>(world.size()), 1);
    auto const memory = std::make_shared<Bytes>(16 * (counts.size() + 1));
    try {
      transport->reduce_scatter({.round = 4,
                                 .what = "states meet",
                                 .counts = counts,
                                 .parts = {memory->data(), 16 * counts.size()},
                                 .result = {memory->data() + 16 * counts.size(), 16}},
                                sum_and_product, memory);
      ADD_FAILURE() << "nothing was thrown";
    } catch (PeerLost const& error) {
      EXPECT_NE(std::string(error.what()).find(", round 4: all are alive, but not every rank has taken part"),
                std::string::npos)
          << error.what();
      EXPECT_NE(std::string(error.what()).find("while states meet"), std::string::npos) << error.what();
    }
  }
  std::this_thread::sleep_for(2s);  // ranks in their wait count on answers
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
