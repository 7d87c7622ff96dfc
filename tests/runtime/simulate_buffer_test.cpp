// Links that take bytes from a sender before they have gone: what a rank sends ahead of its receiver.
#include <gtest/gtest.h>

#include "simulate_case.hpp"

namespace plait {
namespace {

using test::simulate;
using test::Tiny;
using test::tiny_machine;

constexpr double close = 1e-9;

/// Within a node 1,000 bytes take 0.25 + 1 s and arrive 0.5 s later; so many bytes are taken ahead.
Machine buffered_machine(double buffer_bytes) {
  Machine machine = tiny_machine(4);
  machine.node.buffer_bytes = buffer_bytes;
  return machine;
}

/// It goes on at once, and the receiver has the bytes as if nothing were buffered.
TEST(Buffers, ASenderDoesNotWaitForWhatItsLinkHasTaken) {
  Tiny tiny(2);
  tiny.send_kv(0, 1);
  Simulation const result = simulate(std::move(tiny), buffered_machine(2000));
  EXPECT_NEAR(result.exposed_comm_seconds[0], 0, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 1.75, close);
  EXPECT_NEAR(result.seconds, 1.75, close);
  EXPECT_NEAR(result.critical.node, 1.25, close);
  EXPECT_NEAR(result.critical.latency, 0.5, close);
}

/// Three messages of 1.25 s each: at 3.75 s the last has gone, and 1,500 bytes less at 2.25 s.
TEST(Buffers, ASenderGoesOnWhenNoMoreThanTheBufferWaits) {
  Tiny tiny(4);
  for (int const to : {1, 2, 3}) tiny.send_kv(0, to);
  Simulation const result = simulate(std::move(tiny), buffered_machine(1500));
  EXPECT_NEAR(result.exposed_comm_seconds[0], 3 * 1.25 - 1.5, close);
  EXPECT_NEAR(result.seconds, 3 * 1.25 + 0.5, close);
}

/// The receiver computes for 2 s in the round before; the message has arrived by then.
TEST(Buffers, AMessageLeavesBeforeItsReceiverHasBegunTheRound) {
  auto const result_with = [](double buffer_bytes) {
    Tiny tiny(2);
    tiny.fold_own(1);
    tiny.end_round();
    tiny.send_kv(0, 1);
    return simulate(std::move(tiny), buffered_machine(buffer_bytes));
  };
  Simulation const early = result_with(1000);
  EXPECT_NEAR(early.seconds, 2, close);
  EXPECT_NEAR(early.exposed_comm_seconds[1], 0, close);
  EXPECT_NEAR(early.critical.fold, 2, close);
  // One byte more than is taken ahead waits for the receiver, and the sender for all but the buffer.
  Simulation const late = result_with(999);
  EXPECT_NEAR(late.seconds, 2 + 1.75, close);
  EXPECT_NEAR(late.exposed_comm_seconds[0], 2 + 1.25 - 0.999, close);
}

/// Rank 0 sends in three rounds, and folds nothing; rank 1 folds for 2 s in each. Without a buffer the
/// transfers start in step with the folds; with one they are ahead, and only the first is waited for.
TEST(Buffers, ASenderRunsAheadByRounds) {
  auto const seconds_with = [](double buffer_bytes) {
    Tiny tiny(2);
    for (int round = 0; round < 3; ++round) {
      tiny.send_kv(0, 1);
      tiny.end_round();
      tiny.fold_own(1);
    }
    Machine machine = buffered_machine(buffer_bytes);
    machine.node.latency_seconds = 1.0;
    return simulate(std::move(tiny), machine).seconds;
  };
  EXPECT_NEAR(seconds_with(0), 2.25 + 2.25 + 2.25 + 2, close);
  EXPECT_NEAR(seconds_with(3000), 2.25 + 2 + 2 + 2, close);
}

}  // namespace
}  // namespace plait
