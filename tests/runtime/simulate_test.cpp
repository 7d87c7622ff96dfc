#include "plait/simulate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

#include "plait/strategy.hpp"
#include "plait/work.hpp"
#include "random_problem.hpp"
#include "simulate_case.hpp"

namespace plait {
namespace {

using test::flat_machine;
using test::full_problem;
using test::ranks;
using test::simulate;
using test::Tiny;
using test::tiny_machine;
using test::tokens;

/// A ring of P equal blocks: P folds one after the other, each hiding a transfer that is shorter.
TEST(Simulate, RingWithFastLinkTakesTheFoldsTime) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "ring");
  Machine const machine = flat_machine(1e9, 1e12, 0.0);
  double const folds = 1000.0 * 4000.0 * 2 * 64 / 1e9;
  Simulation const result = simulate(plan, machine, Record::nothing);
  EXPECT_NEAR(result.seconds, folds, 1e-6);
  for (double const exposed : result.exposed_comm_seconds) EXPECT_NEAR(exposed, 0.0, 1e-9);
  EXPECT_TRUE(result.timeline.empty());
}

/// A ring's steps take the same memory for each rank and hop, so little that those of 4,096 ranks fit into
/// half of 8 GiB; what the simulation itself needs grows with the ranks alone.
TEST(Simulate, StepsOfARingOf4096RanksFitIntoMemory) {
  auto const bytes_per_hop = [](Index count) {
    Index const n = 128 * count;
    Shape const shape{.q_tokens = n, .kv_tokens = n};
    Problem const problem{.shape = shape, .mask = Mask::full(n, n), .scale = 1.0};
    Plan const plan =
        make_plan(problem, make_layouts("zigzag", problem.mask, static_cast<int>(count)), "ring");
    std::size_t bytes = 0;
    for (Program const& program : plan.programs) {
      bytes += (program.sends.size() + program.receives.size()) * sizeof(Transfer);
      bytes += program.folds.size() * sizeof(Fold) + program.ends.size() * sizeof(Program::Cut);
    }
    return static_cast<double>(bytes) / static_cast<double>(count * count);
  };
  EXPECT_NEAR(bytes_per_hop(32) / bytes_per_hop(128), 1.0, 0.03);
  EXPECT_LT(bytes_per_hop(128) * 4096 * 4096, 4.0 * (1ULL << 30));
}

/// With a slow link the ring takes P−1 transfers and the last fold.
TEST(Simulate, RingWithSlowLinkTakesTheTransfersTime) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "ring");
  Machine const machine = flat_machine(1e15, 1e6, 0.5);
  // 1,000 tokens a rank travel in 3 pieces: 3 transfers of each, one after the other, for each of 3 hops.
  double const transfers = 3 * 1000.0 * 64 * 4 / 1e6 + 9 * 0.5;
  EXPECT_NEAR(simulate(plan, machine, Record::nothing).seconds, transfers, 1e-3);
}

TEST(Simulate, TimelineHasEveryStepAndNoOverlapOfComputation) {
  Problem const problem = full_problem();
  Plan const plan = make_plan(problem, make_layouts("contiguous", problem.mask, ranks), "passq");
  Simulation const result = simulate(plan, {}, Record::timeline);
  std::size_t folds = 0;
  std::size_t sends = 0;
  std::vector<double> busy_until(ranks, 0.0);
  for (Event const& event : result.timeline) {
    EXPECT_LE(event.start_seconds, event.end_seconds);
    EXPECT_LE(event.end_seconds, result.seconds + 1e-12);
    folds += event.kind == Event::Kind::fold ? 1 : 0;
    sends += event.kind == Event::Kind::send ? 1 : 0;
    bool const computes = event.kind != Event::Kind::send && event.kind != Event::Kind::receive;
    if (!computes) continue;
    EXPECT_GE(event.start_seconds, busy_until[static_cast<std::size_t>(event.rank)] - 1e-12);
    busy_until[static_cast<std::size_t>(event.rank)] = event.end_seconds;
  }
  std::size_t planned_folds = 0;
  std::size_t planned_sends = 0;
  for (Program const& program : plan.programs) {
    planned_folds += program.folds.size();
    planned_sends += program.sends.size();
  }
  EXPECT_EQ(folds, planned_folds);
  EXPECT_EQ(sends, planned_sends);
}

constexpr double close = 1e-9;

TEST(Rules, AMessageTakesItsOverheadItsBytesAndTheLatency) {
  Tiny tiny(2);
  tiny.send_kv(0, 1);
  Simulation const result = simulate(std::move(tiny), tiny_machine(2));
  EXPECT_NEAR(result.seconds, 0.25 + 1 + 0.5, close);
  EXPECT_NEAR(result.critical.node, 1.25, close);
  EXPECT_NEAR(result.critical.latency, 0.5, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 1.75, close);
  EXPECT_EQ(result.network_bytes, (std::vector<std::uint64_t>{0, 0}));
}

TEST(Rules, MessagesThatARankSendsShareItsLink) {
  Tiny tiny(3);
  tiny.send_kv(0, 1);
  tiny.send_kv(0, 2);
  EXPECT_NEAR(simulate(std::move(tiny), tiny_machine(3)).seconds, 2 * 1.25 + 0.5, close);
}

TEST(Rules, MessagesThatARankReceivesShareItsLink) {
  Tiny tiny(3);
  tiny.send_kv(1, 0);
  tiny.send_kv(2, 0);
  EXPECT_NEAR(simulate(std::move(tiny), tiny_machine(3)).seconds, 2 * 1.25 + 0.5, close);
}

/// Two states of 508 bytes come to rank 0, one after the other, and are merged there, 3 · 508 bytes touched
/// by each.
TEST(Rules, AReductionIsItsPartsOnTheirWayAndTheirMerges) {
  Tiny tiny(3);
  for (int rank = 0; rank < 3; ++rank) tiny.fold_own(rank);
  BlockId const q = tiny.q_blocks(0).front();
  std::vector<SlotId> parts = {at_rest};
  for (int rank = 1; rank < 3; ++rank) parts.push_back(tiny.acquire(rank, tiny.state_of(q)));
  tiny.end_round();
  tiny.reduce_at_home(q, parts);
  Machine machine = tiny_machine(3);
  machine.step_seconds = 3;
  double const parts_arrive = 2 + 2 * (0.25 + 0.508) + 0.5;
  Simulation const result = simulate(std::move(tiny), machine);
  EXPECT_NEAR(result.seconds, parts_arrive + 2 * 3, close);
  EXPECT_NEAR(result.critical.merge, 6, close);
  EXPECT_NEAR(result.exposed_comm_seconds[0], parts_arrive - 2, close);
}

TEST(Rules, LinksCarryBothWaysAtOnce) {
  Tiny tiny(2);
  tiny.send_kv(0, 1);
  tiny.send_kv(1, 0);
  EXPECT_NEAR(simulate(std::move(tiny), tiny_machine(2)).seconds, 1.75, close);
}

TEST(Rules, LevelsHaveLinksOfTheirOwn) {
  Tiny tiny(4);
  tiny.send_kv(0, 1);  // within the node: 1.25 s, arrives at 1.75
  tiny.send_kv(0, 2);  // between nodes, on another link meanwhile: 2.125 s, arrives at 6.125
  Simulation const result = simulate(std::move(tiny), tiny_machine(2));
  EXPECT_NEAR(result.seconds, 6.125, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 1.75, close);
  EXPECT_NEAR(result.critical.network, 2.125, close);
  EXPECT_EQ(result.critical.node, 0.0);
  EXPECT_EQ(result.network_bytes, (std::vector<std::uint64_t>{1000, 0, 0, 0}));
}

TEST(Rules, RanksOfANodeShareItsPort) {
  auto const two_to_the_next_node = [](Machine const& machine) {
    Tiny tiny(4);
    tiny.send_kv(0, 2);
    tiny.send_kv(1, 3);
    return simulate(std::move(tiny), machine).seconds;
  };
  Machine machine = tiny_machine(2);
  EXPECT_NEAR(two_to_the_next_node(machine), 2.125 + 4, close);
  machine.port_bytes_per_second = 400;  // 2.5 s each, one after the other
  EXPECT_NEAR(two_to_the_next_node(machine), 2 * 2.5 + 4, close);
  machine.port_bytes_per_second = 1e6;  // the links are slower
  EXPECT_NEAR(two_to_the_next_node(machine), 2.125 + 4, close);
}

/// Four ranks that share cores, on which one alone would be 3 times as fast: as long as n of them compute,
/// each is min(3, 4 / n) times as fast as while all do.
TEST(Rules, RanksThatComputeAloneHaveTheCoresToThemselves) {
  Machine machine = tiny_machine(4);
  machine.crowd_ranks = 4;
  machine.alone_speedup = 3;
  auto const seconds_of = [&](std::vector<int> const& folds) {
    Tiny tiny(4);
    for (int rank = 0; rank < 4; ++rank) {
      for (int i = 0; i < folds[static_cast<std::size_t>(rank)]; ++i) tiny.fold_own(rank);
    }
    return simulate(std::move(tiny), machine).seconds;
  };
  EXPECT_NEAR(seconds_of({1, 1, 1, 1}), 2, close);
  EXPECT_NEAR(seconds_of({1, 0, 0, 0}), 2 / 3.0, close);
  EXPECT_NEAR(seconds_of({1, 1, 0, 0}), 2 / 2.0, close);
  // All four for 2 s, then two of 2 s more each at twice the speed, then one of 2 s at three times.
  EXPECT_NEAR(seconds_of({1, 1, 2, 3}), 2 + 1 + 2 / 3.0, close);
  machine.crowd_ranks = 2;  // pairs do not see each other
  EXPECT_NEAR(seconds_of({1, 1, 0, 1}), 2, close);
  EXPECT_NEAR(seconds_of({1, 0, 0, 1}), 2 / 2.0, close);
}

/// What a rank computes in a round counts for those that have gone on to the next.
TEST(Rules, CrowdsReachAcrossRounds) {
  Machine machine = tiny_machine(2);
  machine.crowd_ranks = 2;
  machine.alone_speedup = 2;
  Tiny tiny(2);
  tiny.fold_own(0);
  tiny.fold_own(0);
  tiny.fold_own(1);
  tiny.end_round();
  tiny.fold_own(1);
  // Rank 0: 2 s beside rank 1, then 1 s alone. Rank 1 goes on at 2 s, beside rank 0 until 3 s: 1 s done; the
  // rest takes 0.5 s alone.
  EXPECT_NEAR(simulate(std::move(tiny), machine).seconds, 3.5, close);
}

TEST(Rules, ATransferIsReadyWhenBothRanksHaveBegunTheRound) {
  Tiny tiny(2);
  tiny.fold_own(1);
  tiny.end_round();
  tiny.send_kv(0, 1);
  Simulation const result = simulate(std::move(tiny), tiny_machine(2));
  EXPECT_NEAR(result.seconds, 2 + 1.75, close);
  EXPECT_NEAR(result.exposed_comm_seconds[0], 3.75, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 1.75, close);
  // The chain is that of the rank for which the transfer waited.
  EXPECT_NEAR(result.critical.fold, 2, close);
  EXPECT_NEAR(result.critical.node, 1.25, close);
}

TEST(Rules, TransfersHideBehindFoldsOfTheirRound) {
  Tiny tiny(2);
  tiny.fold_own(0);
  tiny.fold_own(1);
  tiny.send_kv(0, 1);
  Simulation const result = simulate(std::move(tiny), tiny_machine(2));
  EXPECT_NEAR(result.seconds, 2, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 0, close);
}

TEST(Rules, BytesThatMoveMeanwhileMakeARankComputeLonger) {
  Machine machine = tiny_machine(2);
  machine.host_seconds_per_byte = 1e-3;
  machine.round_seconds = 0.75;
  Tiny folds(2);
  folds.fold_own(0);
  folds.send_kv(0, 1);
  folds.send_kv(1, 0);
  Simulation const result = simulate(std::move(folds), machine);
  EXPECT_NEAR(result.seconds, 2 + 0.75 + 2000 * 1e-3, close);  // sent and received
  EXPECT_NEAR(result.critical.fold, 4.75, close);
  EXPECT_NEAR(result.exposed_comm_seconds[1], 1.75, close);
  machine.round_share = 0.125;  // of 2 s
  Tiny short_fold(2);
  short_fold.fold_own(0);
  short_fold.send_kv(0, 1);
  EXPECT_NEAR(simulate(std::move(short_fold), machine).seconds, 2 + 0.25 + 1000 * 1e-3, close);
  Tiny only_moves(2);  // what does not compute is not slowed down
  only_moves.send_kv(0, 1);
  EXPECT_NEAR(simulate(std::move(only_moves), machine).seconds, 1.75, close);
}

/// 1,000 bytes take 1.25 s and a fold 2 s: at a quarter of the speed 0.5 s' worth moves meanwhile, one way
/// only, at all of its speed, all of it, and of 2,000 bytes in and 1,000 out, at 1 - 3/4 / 2, 1.25 s' worth.
TEST(Rules, LinksOfRanksThatComputeAreSlower) {
  Machine machine = tiny_machine(3);
  machine.link_share_computing = 0.25;
  auto const result_of = [&](std::vector<std::pair<int, int>> const& sends) {
    Tiny tiny(3);
    tiny.fold_own(0);
    for (auto const& [from, to] : sends) tiny.send_kv(from, to);
    return simulate(std::move(tiny), machine);
  };
  EXPECT_NEAR(result_of({{1, 0}, {0, 1}}).seconds, 2 + 0.75 + 0.5, close);
  EXPECT_NEAR(result_of({{1, 0}}).exposed_comm_seconds[1], 1.25 + 0.5, close);
  EXPECT_NEAR(result_of({{0, 1}}).exposed_comm_seconds[1], 1.25 + 0.5, close);
  EXPECT_NEAR(result_of({{1, 0}, {2, 0}, {0, 1}}).seconds, 2 + (2.5 - 1.25) + 0.5, close);
  EXPECT_NEAR(result_of({{1, 2}}).exposed_comm_seconds[1], 1.75, close);  // neither computes
  machine.node = {.latency_seconds = 0, .bytes_per_second = 4000, .message_seconds = 0};
  EXPECT_NEAR(result_of({{1, 0}, {0, 1}}).exposed_comm_seconds[1], 0.25 / 0.25, close);
  EXPECT_NEAR(result_of({{1, 0}}).exposed_comm_seconds[1], 0.25, close);
}

/// 1,000 bytes take 1.25 s, and 1.25 / 0.5 where neither end computes.
TEST(Rules, LinksBetweenRanksThatOnlyWaitAreSlower) {
  Machine machine = tiny_machine(3);
  machine.link_share_exposed = 0.5;
  auto const exposed = [&](int from, int to) {
    Tiny tiny(3);
    tiny.fold_own(0);
    tiny.send_kv(from, to);
    return simulate(std::move(tiny), machine).exposed_comm_seconds[static_cast<std::size_t>(to)];
  };
  EXPECT_NEAR(exposed(1, 2), 1.25 / 0.5 + 0.5, close);
  EXPECT_NEAR(exposed(0, 1), 1.25 + 0.5, close);
  EXPECT_NEAR(exposed(1, 0), 0, close);  // it folds for 2 s
}

/// Three ranks that share cores, which fold in 2 s while all do, and alone in 1 s. Links have a quarter of
/// their speed while all compute, half while two do, three quarters while one does. 1,000 bytes take 1.25 s.
TEST(Rules, LinksLoseSpeedToAllThatComputeOnTheirCores) {
  Machine machine = tiny_machine(3);
  machine.link_share_computing = 0.25;
  machine.crowd_ranks = 3;
  machine.alone_speedup = 2;
  auto const arrival = [&](std::vector<int> const& folds) {
    Tiny tiny(3);
    for (int const rank : folds) tiny.fold_own(rank);
    tiny.send_kv(0, 2);
    tiny.send_kv(2, 0);
    return simulate(std::move(tiny), machine).seconds;
  };
  EXPECT_NEAR(arrival({0, 1, 2}), 2 + (1.25 - 0.25 * 2) + 0.5, close);
  EXPECT_NEAR(arrival({0}), 1 + (1.25 - 0.75 * 1) + 0.5, close);
  EXPECT_NEAR(arrival({0, 1}), 4.0 / 3 + (1.25 - 0.5 * 4 / 3) + 0.5, close);
  // Rank 0 goes on alone for 1 s: of 7/3 s it is one of two for 4/3 s, so that 11/21 of the crowd compute.
  EXPECT_NEAR(arrival({0, 0, 1}), 1.25 / (1 - 0.75 * 11 / 21) + 0.5, close);
  EXPECT_NEAR(arrival({1}), 1.25 + 0.5, close);  // what does not compute is not slowed down
  machine.crowd_ranks = 1;                       // a core of its own for each, which it shares with its links
  EXPECT_NEAR(arrival({0}), 2 + (1.25 - 0.5) + 0.5, close);
}

TEST(Rules, FoldsWithFewTilesUseAShareOfTheUnits) {
  // 8 rows and 8 keys: 64 pairs of 500 flops, 128 s at 250 flops/s.
  auto const fold_seconds = [](int units, int tile_rows) {
    Tiny tiny(1, 8);
    tiny.fold_own(0);
    Machine machine = tiny_machine(1);
    machine.units = units;
    machine.tile_rows = tile_rows;
    return simulate(std::move(tiny), machine).seconds;
  };
  EXPECT_NEAR(fold_seconds(1, 128), 128, close);
  EXPECT_NEAR(fold_seconds(4, 4), 128 * 2, close);                // 2 tiles
  EXPECT_NEAR(fold_seconds(4, 3), 128 * 4.0 / 3 * 9 / 8, close);  // a third tile of 2 rows
  EXPECT_NEAR(fold_seconds(4, 2), 128, close);
  EXPECT_NEAR(fold_seconds(4, 1), 128, close);  // 8 tiles
}

/// Few rows over many keys are folded in parts of 1,024 keys or more, and take as long as full tiles.
TEST(Rules, FoldsOfManyKeysUseAllUnits) {
  Machine machine;
  machine.units = 132;
  machine.tile_rows = 128;
  auto const share = [&](double heads, double rows, double keys) {
    return busy_share({.query_heads = heads, .rows = rows, .keys = keys}, machine);
  };
  EXPECT_NEAR(share(1, 128, 1024), 1.0 / 132, close);
  EXPECT_NEAR(share(1, 128, 66 * 1024), 0.5, close);
  EXPECT_NEAR(share(1, 128, 1 << 20), 1, close);
  EXPECT_NEAR(share(8, 32, 1 << 20), 0.25, close);
  EXPECT_NEAR(share(132, 128, 1), 1, close);
  machine.units = 1;
  EXPECT_EQ(share(8, 3, 5), 1.0);
}

/// A GPU reads keys while it multiplies: whichever takes longer counts. A CPU packs them first.
TEST(Rules, KeysAreReadBesideTheProductsOfAGpu) {
  Machine machine = tiny_machine(1);
  machine.tile_rows = 1;
  machine.flops_per_second = 10;
  machine.memory_bytes_per_second = 100;
  auto const fold_seconds = [&](int units, double key_rate) {
    machine.units = units;
    machine.key_bytes_per_second = key_rate;
    return seconds({.flops = 40, .row_bytes = 50, .key_bytes = 60, .query_heads = 1, .rows = 2, .keys = 1},
                   machine);
  };
  EXPECT_NEAR(fold_seconds(1, 20), 4 + 0.5 + 3, close);
  EXPECT_NEAR(fold_seconds(2, 20), 4 + 0.5, close);
  EXPECT_NEAR(fold_seconds(2, 10), 0.5 + 6, close);
}

/// A single query's heads are rows of the key/value head that they read.
TEST(Rules, HeadsOfASingleQueryAreRows) {
  auto const work = [](Index q_tokens) {
    Shape const shape{.batch = 3, .q_tokens = q_tokens, .kv_tokens = 500, .q_heads = 8, .kv_heads = 2};
    Problem const problem{shape, Mask::full(q_tokens, 500)};
    return fold_work(problem, {.tensor = Tensor::q, .slice = {0, q_tokens}, .heads = {0, 2}},
                     {.tensor = Tensor::kv, .slice = {0, 500}, .heads = {0, 2}}, Start::identity);
  };
  EXPECT_EQ(work(1).query_heads, 6);
  EXPECT_EQ(work(1).rows, 4);
  EXPECT_EQ(work(2).query_heads, 24);
  EXPECT_EQ(work(2).rows, 2);
  EXPECT_EQ(work(1).keys, 500);
}

TEST(Rules, StepsTakeTheirStartAndTheirBytes) {
  Machine machine = tiny_machine(1);
  machine.flops_per_second = 1e15;
  machine.memory_bytes_per_second = 1000;
  machine.key_bytes_per_second = 500;
  machine.merge_bytes_per_second = 1000;
  machine.fold_seconds = 10;
  machine.step_seconds = 20;
  Tiny tiny(1);
  BlockId const q = tiny.q_blocks(0).front();
  tiny.fold_own(0);  // from the identity: queries, keys and values in, the state out
  tiny.fold_own(0);  // the state in, too
  tiny.end_round();
  SlotId const other = tiny.acquire(0, tiny.state_of(q));
  tiny.merge_at_home(0, q, other);
  tiny.finish(0, q, other, at_rest);
  Simulation const result = simulate(std::move(tiny), machine);
  EXPECT_NEAR(result.critical.fold, 10 + 1.008 + 2 + 10 + 1.516 + 2, 1e-6);
  EXPECT_NEAR(result.critical.merge, 20 + 3 * 0.508 + 20 + 0.508 + 0.504, close);
  EXPECT_NEAR(result.seconds, result.critical.fold + result.critical.merge, close);
}

/// Documents of four tokens each: of eight rows and the last four keys, four rows have something to do.
TEST(Rules, OnlyRowsAndKeysThatMeetAreTouched) {
  constexpr std::array<Index, 2> documents = {4, 4};
  Shape const shape{.q_tokens = 8,
                    .kv_tokens = 8,
                    .q_heads = 1,
                    .kv_heads = 1,
                    .head_dim = 125,
                    .value_dim = 125,
                    .dtype = DType::f32};
  Problem const problem{.shape = shape, .mask = Mask::documents(documents), .scale = 1.0};
  Block const q{.tensor = Tensor::q, .slice = {0, 8}, .heads = {0, 1}};
  Block const kv{.tensor = Tensor::kv, .slice = {2, 8}, .heads = {0, 1}};
  FoldWork const all = fold_work(problem, q, kv, Start::carried);
  EXPECT_NEAR(all.flops, (4 * 2 + 4 * 4) * 500, close);
  EXPECT_NEAR(all.row_bytes, 8 * 500 + 2 * 8 * 508, close);
  EXPECT_NEAR(all.key_bytes, 6 * 1000, close);
  Block const last{.tensor = Tensor::kv, .slice = {4, 8}, .heads = {0, 1}};
  FoldWork const half = fold_work(problem, q, last, Start::carried);
  EXPECT_NEAR(half.flops, 4 * 4 * 500, close);
  EXPECT_NEAR(half.row_bytes, 4 * 500 + 2 * 4 * 508, close);
  EXPECT_NEAR(half.key_bytes, 4 * 1000, close);
  EXPECT_EQ(half.rows, 4);
  // The rows without a key become identities.
  EXPECT_NEAR(fold_work(problem, q, last, Start::identity).row_bytes, 4 * 500 + 8 * 508, close);
}

/// Of 8 rows and keys: a causal mask cuts 7 rows short (the last sees all keys), a window of 3 keys to the
/// left and right cuts 4 rows on each side; documents have straight edges alone.
TEST(Rules, RowsAtSlopedEdgesCostMore) {
  Machine machine = tiny_machine(1);
  machine.edge_keys = 3;
  auto const fold_of = [&](Mask const& mask) {
    Shape const shape{.q_tokens = 8,
                      .kv_tokens = 8,
                      .q_heads = 1,
                      .kv_heads = 1,
                      .head_dim = 125,
                      .value_dim = 125,
                      .dtype = DType::f32};
    Problem const problem{.shape = shape, .mask = mask, .scale = 1.0};
    Block const q{.tensor = Tensor::q, .slice = {0, 8}, .heads = {0, 1}};
    Block const kv{.tensor = Tensor::kv, .slice = {0, 8}, .heads = {0, 1}};
    return seconds(fold_work(problem, q, kv, Start::carried), machine);
  };
  constexpr std::array<Index, 2> documents = {4, 4};
  EXPECT_NEAR(fold_of(Mask::full(8, 8)), 64 * 2, close);
  EXPECT_NEAR(fold_of(Mask::documents(documents)), 32 * 2, close);
  EXPECT_NEAR(fold_of(Mask::causal(8, 8)), (36 + 7 * 3) * 2, close);
  EXPECT_NEAR(fold_of(Mask::window(8, 8, 3, 3)), (44 + 8 * 3) * 2, close);
}

/// On any plan and machine: the chain that ends last accounts for all of the time, and no rank waits longer.
TEST(Rules, TheCriticalPathOfRandomPlansIsTheirTime) {
  std::uint64_t const seed = test::seed_or(11);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  test::Random random(seed);
  for (int round = 0; round < 100; ++round) {
    Index const n = test::uniform(random, 0, round % 4 == 0 ? 3000 : 60);
    int const count = static_cast<int>(test::uniform(random, 1, 9));
    Shape const shape{.q_tokens = n,
                      .kv_tokens = n,
                      .q_heads = 8,
                      .kv_heads = 2,
                      .head_dim = 16,
                      .value_dim = 8,
                      .dtype = DType::bf16};
    Problem const problem{.shape = shape, .mask = test::random_mask(random, n, n), .scale = 1.0};
    Layouts const layouts = test::random_layouts(random, problem.mask, count);
    Machine const machine = test::random_machine(random, count);
    for (std::string const& strategy : test::all_variants(problem, layouts)) {
      Plan const plan = make_plan(problem, layouts, strategy);
      Simulation const result = simulate(plan, machine, Record::nothing);
      ASSERT_NEAR(result.critical.total(), result.seconds, 1e-9 * result.seconds) << strategy;
      for (double const exposed : result.exposed_comm_seconds) {
        ASSERT_GE(exposed, 0.0) << strategy;
        ASSERT_LE(exposed, result.seconds * (1 + 1e-9)) << strategy;
      }
      Simulation const cut = simulate(plan, machine, Record::nothing, result.seconds / 2);
      ASSERT_LE(cut.seconds, result.seconds) << strategy;
      ASSERT_TRUE(cut.seconds > result.seconds / 2 || result.seconds == 0) << strategy;
      ASSERT_EQ(simulate(plan, machine, Record::nothing, result.seconds).seconds, result.seconds) << strategy;
    }
  }
}

}  // namespace
}  // namespace plait
