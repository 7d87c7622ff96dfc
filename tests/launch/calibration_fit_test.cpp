// Fits on numbers that were made from known machines.
#include "calibration_fit.hpp"

#include <gtest/gtest.h>

#include <random>

#include "plait/strategy.hpp"

namespace plait {
namespace {

Machine const known{.flops_per_second = 40e9,
                    .fold_seconds = 8e-6,
                    .memory_bytes_per_second = 6e9,
                    .key_bytes_per_second = 2e9,
                    .merge_bytes_per_second = 3e9,
                    .step_seconds = 2e-6,
                    .node = {.latency_seconds = 30e-6, .bytes_per_second = 1.5e9, .message_seconds = 4e-6}};

/// 1 to 2,048 rows by 64 to 1,024 keys, of 128 elements of 4 bytes, one to eight heads.
std::vector<FoldWork> works() {
  std::vector<FoldWork> all;
  for (double const rows : {1.0, 16.0, 256.0, 2048.0}) {
    for (double const keys : {64.0, 1024.0}) {
      for (double const heads : {1.0, 8.0}) {
        all.push_back({.flops = 4 * rows * keys * heads * 128,
                       .row_bytes = heads * 4 * (rows * 128 + 2 * rows * 130),
                       .key_bytes = heads * 4 * keys * 256,
                       .query_heads = heads,
                       .rows = rows});
      }
    }
  }
  return all;
}

struct Timed {
  std::vector<TimedFold> folds;
  std::vector<TimedMerge> merges;
  std::vector<TimedExchange> exchanges;
};

/// What a machine takes, each time off by up to `noise` either way.
Timed timed(Machine const& machine, double noise) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> factor(1 - noise, 1 + noise);
  Timed result;
  for (FoldWork const& work : works()) {
    double const tiles = work.query_heads * std::ceil(work.rows / machine.tile_rows);
    double const filled =
        machine.units == 1 ? 1.0 : work.query_heads * work.rows / (tiles * machine.tile_rows);
    double const rate = machine.flops_per_second * filled * std::min(1.0, tiles / machine.units);
    double const products = work.flops / rate;
    double const keys = work.key_bytes / machine.key_bytes_per_second;
    double const exact = machine.fold_seconds + work.row_bytes / machine.memory_bytes_per_second +
                         (machine.units == 1 ? products + keys : std::max(products, keys));
    result.folds.push_back({work, exact * factor(random)});
  }
  for (double const bytes : {1e3, 1e5, 1e6, 1e7}) {
    double const exact = machine.step_seconds + bytes / machine.merge_bytes_per_second;
    result.merges.push_back({bytes, exact * factor(random)});
  }
  for (double const messages : {1.0, 16.0}) {
    for (double const bytes : {0.0, 1e3, 1e5, 8e6}) {
      double const one = machine.node.message_seconds + bytes / machine.node.bytes_per_second;
      double const exact = machine.node.latency_seconds + messages * one;
      result.exchanges.push_back({messages, bytes, exact * factor(random)});
    }
  }
  return result;
}

void expect_near(double found, double expected, double relative) {
  EXPECT_NEAR(found, expected, relative * expected);
}

TEST(Fit, ExactTimesGiveTheMachineBack) {
  Timed const times = timed(known, 0.0);
  Machine found;
  fit_folds(times.folds, found);
  fit_merges(times.merges, found);
  expect_near(found.fold_seconds, 8e-6, 1e-6);
  expect_near(found.flops_per_second, 40e9, 1e-6);
  expect_near(found.step_seconds, 2e-6, 1e-6);
  expect_near(found.memory_bytes_per_second, 6e9, 1e-6);
  expect_near(found.key_bytes_per_second, 2e9, 1e-6);
  expect_near(found.merge_bytes_per_second, 3e9, 1e-6);
  EXPECT_LT(worst_error(times.folds, found), 1e-6);
  EXPECT_LT(worst_error(times.merges, found), 1e-6);
  Link const link = fit_link(times.exchanges);
  expect_near(link.latency_seconds, 30e-6, 1e-6);
  expect_near(link.message_seconds, 4e-6, 1e-6);
  expect_near(link.bytes_per_second, 1.5e9, 1e-6);
  EXPECT_LT(worst_error(times.exchanges, link), 1e-6);
}

/// Causal blocks of 192 and 512 rows, whose edges cost 48 keys a row: also on a machine whose numbers are 10%
/// and 20% off for these two shapes, with and without the mask.
TEST(Fit, CausalFoldsGiveTheEdgeBack) {
  std::vector<TimedEdge> edges;
  for (double const n : {192.0, 512.0}) {
    FoldWork const whole{.flops = 512 * n * n, .query_heads = 1, .rows = n};
    FoldWork const cut{
        .flops = 512 * n * (n + 1) / 2, .edge_flops = 512 * (n - 1), .query_heads = 1, .rows = n};
    edges.push_back({.cut = {cut, 8e-6 + 512 * (n * (n + 1) / 2 + 48 * (n - 1)) / 40e9},
                     .whole = {whole, 8e-6 + 512 * n * n / 40e9}});
  }
  Machine found = known;
  fit_edges(edges, found);
  expect_near(found.edge_keys, 48, 1e-6);
  for (auto const& [edge, factor] : {std::pair{&edges[0], 1.1}, {&edges[1], 0.8}}) {
    edge->cut.seconds *= factor;
    edge->whole.seconds *= factor;
  }
  fit_edges(edges, found);
  expect_near(found.edge_keys, 48, 1e-6);
  for (TimedEdge& edge : edges) edge.cut.seconds /= 2;  // faster than their area alone
  fit_edges(edges, found);
  EXPECT_EQ(found.edge_keys, 0.0);
}

TEST(Fit, RoundsGiveTheirStartAndTheirBytesBack) {
  Machine found;
  std::vector<TimedRound> const line = {{0, 1e-3}, {1e6, 3e-3}, {2e6, 5e-3}};
  fit_rounds(line, found);
  expect_near(found.round_seconds, 1e-3, 1e-6);
  expect_near(found.host_seconds_per_byte, 2e-9, 1e-6);
  std::vector<TimedRound> const below = {{0, -1e-3}, {1e6, 1e-3}, {2e6, 3e-3}};  // through 0: 7e3 / 5e12
  fit_rounds(below, found);
  EXPECT_EQ(found.round_seconds, 0.0);
  expect_near(found.host_seconds_per_byte, 7e3 / 5e12, 1e-6);
  std::vector<TimedRound> const falling = {{0, 3e-3}, {1e6, 2e-3}, {2e6, 1e-3}};
  fit_rounds(falling, found);
  expect_near(found.round_seconds, 2e-3, 1e-6);
  EXPECT_EQ(found.host_seconds_per_byte, 0.0);
}

/// Plans that took as long as on a machine that computes 0.8 times as fast and moves bytes 1.25 times as
/// fast, 0.8 times that where nothing is computed.
TEST(Fit, PlansTellHowFastRanksComputeAndLinksMove) {
  std::vector<TimedPlan> timed;
  std::vector<Plan> plans;
  for (Index const tokens : {512, 4096}) {  // transfers take most of the time, or folds
    Shape const shape{.q_tokens = tokens, .kv_tokens = tokens, .q_heads = 4, .kv_heads = 4};
    Problem const problem{.shape = shape, .mask = Mask::full(tokens, tokens), .scale = 1.0};
    Layouts const layouts = make_layouts("contiguous", problem.mask, 4);
    for (std::string_view const name : {"ring", "passq", "ulysses", "ulysses:4:1"}) {
      plans.push_back(make_plan(problem, layouts, name));
    }
  }
  Machine slow_links = known;
  slow_links.network.bytes_per_second = 100e6;
  for (Machine const& machine : {known, slow_links}) {
    timed.clear();
    Machine const true_one = with_speeds(machine, {.computing = 0.8, .moving = 1.25, .exposed = 0.8});
    for (Plan const& plan : plans)
      timed.push_back({&plan, simulate(plan, true_one, Record::nothing).seconds});
    Speeds const found = fit_speeds(timed, machine);
    bool const links_count = machine.network.bytes_per_second < 1e9;
    expect_near(found.computing, 0.8, 0.03);
    // Where transfers are hidden, plans say little of links.
    expect_near(found.moving, 1.25, links_count ? 0.07 : 0.25);
    expect_near(found.exposed, 0.8, links_count ? 0.07 : 0.25);
    for (TimedPlan& plan : timed) plan.seconds *= 10;
    expect_near(fit_speeds(timed, machine).computing, 0.5, 1e-6);
  }
}

TEST(Fit, SpeedsChangeWhatComputesAndWhatMoves) {
  Machine const other = with_speeds(known, {.computing = 0.5, .moving = 2});
  EXPECT_EQ(other.flops_per_second, known.flops_per_second / 2);
  EXPECT_EQ(other.key_bytes_per_second, known.key_bytes_per_second / 2);
  EXPECT_EQ(other.step_seconds, known.step_seconds * 2);
  EXPECT_EQ(other.node.bytes_per_second, known.node.bytes_per_second * 2);
  EXPECT_EQ(other.node.latency_seconds, known.node.latency_seconds / 2);
  EXPECT_EQ(other.link_share_exposed, 1.0);
  EXPECT_EQ(with_speeds(known, {.exposed = 0.75}).link_share_exposed, 0.75);
  // What could not be told from infinity stays that.
  Machine boundless = known;
  boundless.memory_bytes_per_second = 1e15;
  EXPECT_EQ(with_speeds(boundless, {.computing = 1.6, .moving = 1}).memory_bytes_per_second, 1e15);
}

TEST(Fit, NoisyTimesGiveItBackNearly) {
  Timed const times = timed(known, 0.05);
  Machine found;
  fit_folds(times.folds, found);
  fit_merges(times.merges, found);
  expect_near(found.flops_per_second, 40e9, 0.1);
  expect_near(found.memory_bytes_per_second, 6e9, 0.2);
  expect_near(found.key_bytes_per_second, 2e9, 0.1);
  expect_near(found.fold_seconds, 8e-6, 0.25);
  expect_near(found.merge_bytes_per_second, 3e9, 0.1);
  expect_near(found.step_seconds, 2e-6, 0.25);
  EXPECT_LT(worst_error(times.folds, found), 0.15);
  EXPECT_LT(worst_error(times.merges, found), 0.15);
  expect_near(fit_link(times.exchanges).bytes_per_second, 1.5e9, 0.1);
  expect_near(fit_link(times.exchanges).latency_seconds, 30e-6, 0.25);
}

/// 132 units and tiles of 128 rows: folds with few tiles do not make the rate look low, nor do those that
/// wait for keys, which are read beside the products.
TEST(Fit, FoldsTooSmallForAllUnitsCountInProportion) {
  Machine gpu = known;
  gpu.units = 132;
  gpu.flops_per_second = 600e12;
  gpu.memory_bytes_per_second = 3e12;
  for (double const key_rate : {1e11, 2e11, 1e15}) {
    gpu.key_bytes_per_second = key_rate;
    Timed const times = timed(gpu, 0.0);
    Machine found;
    found.units = 132;
    fit_folds(times.folds, found);
    EXPECT_LT(worst_error(times.folds, found), 1e-4) << key_rate;
    expect_near(found.fold_seconds, 8e-6, 1e-4);
    expect_near(found.flops_per_second, 600e12, 1e-4);
    if (key_rate < 1e15) expect_near(found.key_bytes_per_second, key_rate, 1e-4);
  }
}

/// x0 + x1 would best be 2 and −1 here. Without negative numbers x0 alone is left, and it lies as far below 4
/// as above 1, in proportion.
TEST(Fit, NoNumberIsNegative) {
  std::vector<Observation> const falling = {{{1, 0}, 4.0}, {{1, 1}, 1.0}};
  std::vector<double> const x = fit_non_negative(falling);
  EXPECT_NEAR(x[0], 2.0, 1e-6);
  EXPECT_EQ(x[1], 0.0);
}

/// Unknowns that no observation tells apart share no blame: one of them explains all, and nothing breaks.
TEST(Fit, DependentFactorsAreNoFailure) {
  std::vector<Observation> const same = {{{1, 2}, 4.0}, {{2, 4}, 8.0}};
  std::vector<double> const x = fit_non_negative(same);
  EXPECT_NEAR(x[0] + 2 * x[1], 4.0, 1e-9);
}

TEST(Fit, TimesWithoutBytesMeanABoundlessRate) {
  std::vector<TimedExchange> const constant = {{1, 0, 1e-5}, {1, 1e3, 1e-5}, {1, 1e6, 1e-5}};
  Link const link = fit_link(constant);
  EXPECT_EQ(link.bytes_per_second, 1e15);
  EXPECT_NEAR(link.latency_seconds + link.message_seconds, 1e-5, 1e-12);
}

/// 100 MB/s carry 0.1 MB in 1 ms. A receiver comes 20 ms late: what a sender has handed over within 10 ms is
/// buffered but for what the link had carried by then; what takes longer waits for the receiver.
TEST(Fit, ABufferIsWhatASenderHandsOverAheadOfItsLink) {
  Link const link{.bytes_per_second = 100e6};
  std::vector<TimedSend> const sends = {{1e5, 0.5e-3}, {1e6, 1e-3}, {4e6, 8e-3}, {8e6, 50e-3}};
  EXPECT_NEAR(fit_buffer(sends, 20e-3, link), 4e6 - 0.8e6, 1e-3);
  // With a rendezvous all but small messages wait for the receiver.
  std::vector<TimedSend> const rendezvous = {{1e4, 0.02e-3}, {1e5, 20.1e-3}, {1e6, 28e-3}};
  EXPECT_NEAR(fit_buffer(rendezvous, 20e-3, link), 1e4 - 2e3, 1e-3);
  EXPECT_EQ(fit_buffer(std::span(rendezvous).subspan(1), 20e-3, link), 0.0);
  // No more than the link has carried by then is no buffer.
  EXPECT_EQ(fit_buffer(std::vector<TimedSend>{{1e5, 2e-3}}, 20e-3, link), 0.0);
}

TEST(Fit, RefusesWhatCannotBeFitted) {
  EXPECT_THROW((void)fit_non_negative({}), std::invalid_argument);
  std::vector<Observation> const uneven = {{{1, 2}, 1.0}, {{1}, 1.0}};
  EXPECT_THROW((void)fit_non_negative(uneven), std::invalid_argument);
  std::vector<Observation> const timeless = {{{1}, 0.0}};
  EXPECT_THROW((void)fit_non_negative(timeless), std::invalid_argument);
  std::vector<TimedFold> const constant = {{works()[0], 1e-3}, {works().back(), 1e-3}};
  Machine machine;
  EXPECT_THROW(fit_folds(constant, machine), std::invalid_argument);
}

}  // namespace
}  // namespace plait
