// GPUs of one host that write into each other's memory: what arrives is what was sent, in the order of
// streams. Needs a GPU, which the ranks may share.
#include "peer/transport.hpp"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <random>
#include <thread>

#include "cuda/stream.hpp"
#include "plait/comm_error.hpp"
#include "transport_case.hpp"

namespace plait {
namespace {

using namespace std::chrono_literals;
using namespace plait::test;

/// Device memory that holds some bytes.
class OnDevice {
 public:
  explicit OnDevice(Bytes const& bytes) : bytes_(bytes.size()) {
    PLAIT_CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(1, bytes_)));
    PLAIT_CHECK_CUDA(cudaMemcpy(data_, bytes.data(), bytes_, cudaMemcpyHostToDevice));
    PLAIT_CHECK_CUDA(cudaDeviceSynchronize());  // a copy from memory that is not pinned may return early
  }
  ~OnDevice() { (void)cudaFree(data_); }
  OnDevice(OnDevice const&) = delete;
  OnDevice& operator=(OnDevice const&) = delete;

  [[nodiscard]] Region region() const { return {data_, bytes_}; }
  [[nodiscard]] Bytes read() const {
    Bytes bytes(bytes_);
    PLAIT_CHECK_CUDA(cudaMemcpy(bytes.data(), data_, bytes_, cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

/// A world's ranks on the GPUs of this host, and a stream that stands for a rank's computation.
struct Ranks {
  explicit Ranks(MPI_Comm communicator = MPI_COMM_WORLD, WorldOptions options = {})
      : world(communicator, options) {
    int gpus = 0;
    PLAIT_CHECK_CUDA(cudaGetDeviceCount(&gpus));
    PLAIT_CHECK_CUDA(cudaSetDevice(world.place().local_rank % gpus));
    compute.emplace();
    PeerAttempt made = make_peer_transport(world, *compute);
    EXPECT_EQ(made.refusal, "");
    transport = std::move(made.transport);
  }

  World world;
  std::optional<CudaStream> compute;
  std::unique_ptr<Transport> transport;
};

/// Rows with gaps, one piece, and pieces more than a sender is told of, in memory of a few kilobytes and of
/// several megabytes: what is small lies in one allocation with other things.
TEST(PeerTransport, RingOfAllSizesAndLayouts) {
  Ranks ranks;
  std::mt19937 random(static_cast<unsigned>(ranks.world.rank()) + 1);
  int const to = neighbour(ranks.world, 1);
  int const from = neighbour(ranks.world, -1);
  std::uint64_t moved = 0;
  for (std::size_t const size : {0, 1, 4096, 5000, 3 << 20, (3 << 20) + 64, 8 << 20, 100, 0, 6 << 20}) {
    for (int layout = 0; layout < 3; ++layout) {
      SCOPED_TRACE(testing::Message() << size << " bytes, layout " << layout);
      Bytes const content_sent = filled(static_cast<std::uint64_t>(ranks.world.rank()) + size, size);
      OnDevice const computed(content_sent);
      OnDevice const out(Bytes(size, std::byte{0xdd}));
      OnDevice const in(Bytes(2 * size, std::byte{0x11}));
      // It is sent after the work that makes it. Sent as one piece or cut; received in one, in rows with
      // gaps, or in pieces.
      Region const whole{in.region().data, size};
      std::vector pieces{one_piece(whole)};
      if (layout == 1 && size % 64 == 0) pieces = {rows_of(in.region(), 64)};
      if (layout == 2) pieces = random_cut(whole, random);
      PLAIT_CHECK_CUDA(cudaMemcpyAsync(out.region().data, computed.region().data, size,
                                       cudaMemcpyDeviceToDevice, *ranks.compute));
      ranks.transport->start({.round = size,
                              .sends = {{to, 7, random_cut(out.region(), random)}},
                              .receives = {{from, 7, pieces}}},
                             nullptr);
      ranks.transport->finish();
      PLAIT_CHECK_CUDA(cudaMemsetAsync(out.region().data, 0xee, size, *ranks.compute));  // after it was sent
      ranks.transport->complete("a test");
      Bytes expected(2 * size, std::byte{0x11});
      Bytes const message = filled(static_cast<std::uint64_t>(from) + size, size);
      std::size_t at = 0;
      for (Region const& piece : regions_of(pieces)) {
        std::copy_n(message.begin() + static_cast<std::ptrdiff_t>(at), piece.bytes,
                    expected.begin() + (piece.data - in.region().data));
        at += piece.bytes;
      }
      ASSERT_EQ(in.read(), expected);
      std::vector<Flight> const flights = ranks.transport->take_flights();
      ASSERT_EQ(flights.size(), 2u);
      for (Flight const& flight : flights) EXPECT_LE(flight.start, flight.end);
      moved += size;
    }
  }
  EXPECT_EQ(ranks.transport->traffic().sent[static_cast<std::size_t>(to)], moved);
  EXPECT_EQ(ranks.transport->traffic().received[static_cast<std::size_t>(from)], moved);
}

/// Rounds that nobody waits for between: one block of memory goes around the ring, read and overwritten in
/// each round, so that a copy that overtakes the work it should follow shows.
TEST(PeerTransport, RoundsFollowEachOtherOnStreams) {
  Ranks ranks;
  constexpr std::size_t size = std::size_t{4} << 20;
  constexpr int rounds = 40;
  OnDevice const slots[] = {OnDevice(filled(static_cast<std::uint64_t>(ranks.world.rank()), size)),
                            OnDevice(Bytes(size))};
  for (int round = 0; round < rounds; ++round) {
    Region const out = slots[round % 2].region();
    Region const in = slots[(round + 1) % 2].region();
    ranks.transport->start({.round = static_cast<std::uint64_t>(round),
                            .sends = {{neighbour(ranks.world, 1), 1, {one_piece(out)}}},
                            .receives = {{neighbour(ranks.world, -1), 1, {one_piece(in)}}}},
                           nullptr);
    ranks.transport->finish();
    PLAIT_CHECK_CUDA(
        cudaMemsetAsync(out.data, round, out.bytes, *ranks.compute));  // others may not read this
  }
  ranks.transport->complete("a test");
  int const origin = neighbour(ranks.world, -(rounds % ranks.world.size()));
  EXPECT_EQ(slots[rounds % 2].read(), filled(static_cast<std::uint64_t>(origin), size));
}

TEST(PeerTransport, RandomExchangesThatAreNotWaitedFor) {
  Ranks ranks;
  std::mt19937 random(5);
  std::mt19937 cuts(static_cast<unsigned>(ranks.world.rank()) + 77);
  std::vector<std::uint64_t> received(static_cast<std::size_t>(ranks.world.size()));
  std::deque<OnDevice> memory;
  std::vector<std::pair<OnDevice const*, std::uint64_t>> arriving;  // and the block
  for (std::uint64_t round = 0; round < 60; ++round) {
    Exchange exchange{.round = round, .sends = {}, .receives = {}};
    for (RandomMessage const& message : random_messages(ranks.world.size(), 5000, random)) {
      std::uint64_t const block = message.block + 16 * round;
      if (message.from == ranks.world.rank()) {
        OnDevice const& out = memory.emplace_back(filled(block, message.bytes));
        exchange.sends.push_back({message.to, block, random_cut(out.region(), cuts)});
      }
      if (message.to == ranks.world.rank()) {
        OnDevice const& in = memory.emplace_back(Bytes(message.bytes));
        exchange.receives.push_back({message.from, block, random_cut(in.region(), cuts)});
        arriving.emplace_back(&in, block);
        received[static_cast<std::size_t>(message.from)] += message.bytes;
      }
    }
    ranks.transport->start(std::move(exchange), nullptr);
    ranks.transport->finish();
  }
  ranks.transport->complete("a test");
  for (auto const& [in, block] : arriving) {
    Bytes const found = in->read();
    ASSERT_EQ(found, filled(block, found.size())) << "block " << block;
  }
  EXPECT_EQ(ranks.transport->traffic().received, received);
}

/// What is received into memory that is freed and allocated anew lands in the new one.
TEST(PeerTransport, MemoryMayChangeFromRoundToRound) {
  Ranks ranks;
  for (std::uint64_t round = 0; round < 150; ++round) {
    std::size_t const size = round % 3 == 0 ? std::size_t{2} << 20 : 1000 + round;
    int const from = neighbour(ranks.world, -1);
    OnDevice const out(filled(round + static_cast<std::uint64_t>(ranks.world.rank()), size));
    OnDevice const in{Bytes(size)};
    ranks.transport->start({.round = round,
                            .sends = {{neighbour(ranks.world, 1), round, {one_piece(out.region())}}},
                            .receives = {{from, round, {one_piece(in.region())}}}},
                           nullptr);
    ranks.transport->finish();
    ranks.transport->complete("a test");
    ASSERT_EQ(in.read(), filled(round + static_cast<std::uint64_t>(from), size)) << "round " << round;
  }
}

/// More allocations of a receiver than stay mapped: none is unmapped under a copy.
TEST(PeerTransport, ManyAllocationsAreNotWaitedFor) {
  Ranks ranks;
  constexpr std::size_t size = std::size_t{2} << 20;
  constexpr std::uint64_t rounds = 140;
  int const from = neighbour(ranks.world, -1);
  std::deque<OnDevice> memory;
  OnDevice const out(filled(static_cast<std::uint64_t>(ranks.world.rank()), size));
  for (std::uint64_t round = 0; round < rounds; ++round) memory.emplace_back(Bytes(size));
  for (std::uint64_t round = 0; round < rounds; ++round) {
    // Who comes late finds notes, and queues copies at once; they wait for what the receiver computes.
    bool const late = (static_cast<int>(round) + ranks.world.rank()) % 2 == 0;
    for (int i = 0; i < 30 && !late; ++i) {
      PLAIT_CHECK_CUDA(cudaMemsetAsync(memory[round].region().data, i, size, *ranks.compute));
    }
    std::this_thread::sleep_for(late ? 2ms : 0ms);
    ranks.transport->start({.round = round,
                            .sends = {{neighbour(ranks.world, 1), round, {one_piece(out.region())}}},
                            .receives = {{from, round, {one_piece(memory[round].region())}}}},
                           nullptr);
    ranks.transport->finish();
  }
  ranks.transport->complete("a test");
  for (OnDevice const& in : memory) ASSERT_EQ(in.read(), filled(static_cast<std::uint64_t>(from), size));
}

/// A process maps an allocation of another one once, whoever asks.
TEST(PeerTransport, SeveralTransportsReceiveIntoOneAllocation) {
  Ranks ranks;
  PeerAttempt second = make_peer_transport(ranks.world, *ranks.compute);
  ASSERT_EQ(second.refusal, "");
  constexpr std::size_t half = std::size_t{2} << 20;
  int const from = neighbour(ranks.world, -1);
  OnDevice const in(Bytes(2 * half));
  for (std::uint64_t round = 0; round < 3; ++round) {
    std::deque<OnDevice> out;
    for (std::uint64_t which : {0, 1}) {
      Transport& transport = which == 0 ? *ranks.transport : *second.transport;
      std::uint64_t const block = 10 * round + which;
      OnDevice const& sent =
          out.emplace_back(filled(block + static_cast<std::uint64_t>(ranks.world.rank()), half));
      transport.start({.round = round,
                       .sends = {{neighbour(ranks.world, 1), block, {one_piece(sent.region())}}},
                       .receives = {{from, block, {{in.region().data + which * half, half}}}}},
                      nullptr);
      transport.finish();
    }
    ranks.transport->complete("a test");
    second.transport->complete("a test");
    Bytes expected = filled(10 * round + static_cast<std::uint64_t>(from), half);
    Bytes const other = filled(10 * round + 1 + static_cast<std::uint64_t>(from), half);
    expected.insert(expected.end(), other.begin(), other.end());
    ASSERT_EQ(in.read(), expected) << "round " << round;
    if (round == 1)
      second = make_peer_transport(ranks.world, *ranks.compute);  // the first one's mapping stays
  }
}

TEST(PeerTransport, ABarrierWaitsForAll) {
  Ranks ranks;
  for (int round = 0; round < 20; ++round) {
    auto const late = std::chrono::milliseconds(round % ranks.world.size() == ranks.world.rank() ? 5 : 0);
    std::this_thread::sleep_for(late);
    auto const came = std::chrono::steady_clock::now().time_since_epoch().count();
    ranks.transport->barrier("a test");
    auto const left = std::chrono::steady_clock::now().time_since_epoch().count();
    for (auto const& bytes : ranks.world.all_gather(std::as_bytes(std::span(&came, 1)), "a test")) {
      auto other = came;
      std::memcpy(&other, bytes.data(), sizeof other);
      EXPECT_LE(other, left);
    }
  }
}

TEST(PeerTransport, WrongLengthsAreNamed) {
  Ranks ranks(MPI_COMM_SELF, {.timeout = 500ms});
  ranks.transport->name_blocks([](std::uint64_t block) { return "kv " + std::to_string(block); });
  OnDevice const out(filled(4, 50));
  OnDevice const in{Bytes(60)};
  try {
    ranks.transport->start({.round = 3,
                            .sends = {{0, 4, {one_piece(out.region())}}},
                            .receives = {{0, 4, {one_piece(in.region())}}}},
                           nullptr);
    ranks.transport->finish();
    ADD_FAILURE() << "nothing was thrown";
  } catch (CommError const& error) {
    std::string const message = error.what();
    EXPECT_EQ(message.rfind("rank 0 (host ", 0), 0u) << message;
    EXPECT_NE(message.find("kv 4 has 50 bytes, and rank 0"), std::string::npos) << message;
    EXPECT_NE(message.find("expects 60"), std::string::npos) << message;
  }
}

/// A sender's host waits for its receiver's, and for a barrier all wait; neither lasts for ever.
TEST(PeerTransport, AReceiverThatTakesNoPartIsNamed) {
  Ranks ranks(MPI_COMM_WORLD, {.timeout = 250ms});
  if (ranks.world.size() == 1) GTEST_SKIP() << "needs two ranks";
  if (ranks.world.rank() == 0) {
    OnDevice const out{Bytes(250)};
    ranks.transport->start({.round = 7, .sends = {{1, 12, {one_piece(out.region())}}}, .receives = {}},
                           nullptr);
    try {
      ranks.transport->finish();
      ADD_FAILURE() << "nothing was thrown";
    } catch (PeerLost const& error) {
      std::string const message = error.what();
      EXPECT_NE(message.find("round 7: rank 1"), std::string::npos) << message;
      EXPECT_NE(message.find("is alive but has not moved its part"), std::string::npos) << message;
      EXPECT_NE(message.find("sending block 12 to rank 1"), std::string::npos) << message;
    }
    try {
      ranks.transport->barrier("the start of a run");
      ADD_FAILURE() << "nothing was thrown";
    } catch (PeerLost const& error) {
      EXPECT_NE(std::string(error.what()).find("while the start of a run"), std::string::npos)
          << error.what();
    }
    return;
  }
  std::this_thread::sleep_for(7s);  // alive all the while, and it answers
}

TEST(PeerTransport, APeerThatTakesNoPartIsNamed) {
  Ranks ranks(MPI_COMM_WORLD, {.timeout = 250ms});
  if (ranks.world.size() == 1) GTEST_SKIP() << "needs two ranks";
  if (ranks.world.rank() == 0) {
    OnDevice const in{Bytes(250)};
    ranks.transport->start({.round = 7, .sends = {}, .receives = {{1, 12, {one_piece(in.region())}}}},
                           nullptr);
    try {
      ranks.transport->finish();
      ranks.transport->complete("a test");
      ADD_FAILURE() << "nothing was thrown";
    } catch (PeerLost const& error) {
      std::string const message = error.what();
      EXPECT_NE(message.find("round 7: rank 1"), std::string::npos) << message;
      EXPECT_NE(message.find("receiving block 12 from rank 1"), std::string::npos) << message;
    }
    return;
  }
  std::this_thread::sleep_for(4s);  // alive all the while, and it answers
}

TEST(PeerTransport, OutOfOrderUseIsALogicError) {
  Ranks ranks(MPI_COMM_SELF);
  EXPECT_THROW(ranks.transport->finish(), std::logic_error);
  ranks.transport->start({}, nullptr);
  EXPECT_THROW(ranks.transport->start({}, nullptr), std::logic_error);
  ranks.transport->finish();
  ranks.transport->complete("a test");
  EXPECT_TRUE(ranks.transport->take_flights().empty());
}

}  // namespace
}  // namespace plait
