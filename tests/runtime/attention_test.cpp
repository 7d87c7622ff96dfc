// Attention over the ranks of the job, through the public facade, against the fp64 oracle.
#include "plait/attention.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "attention_case.hpp"
#include "random_problem.hpp"
#include "strategy_case.hpp"

namespace plait {
namespace {

using test::AttentionCase;
using test::expect_within;
using test::Random;
using test::test_options;
using test::uniform;
using test::Verdict;

struct NamedMask {
  std::string name;
  Mask mask;
  std::function<bool(Index, Index)> keeps;  ///< the same, written out by hand
};

std::vector<NamedMask> masks(Index tokens) {
  Index const first = tokens / 3;
  Index const second = tokens - first;
  Index const block = 32;
  Index const blocks = (tokens + block - 1) / block;
  auto const kept = [](Index row, Index column) { return (row * 7 + column * 3) % 4 != 0; };
  std::vector<std::uint8_t> table;
  for (Index row = 0; row < blocks; ++row) {
    for (Index column = 0; column < blocks; ++column) table.push_back(kept(row, column) ? 1 : 0);
  }
  return {{"full", Mask::full(tokens, tokens), [](Index, Index) { return true; }},
          {"causal", Mask::causal(tokens, tokens), [](Index q, Index k) { return k <= q; }},
          {"window", Mask::window(tokens, tokens, 40, 10),
           [](Index q, Index k) { return q - 40 <= k && k <= q + 10; }},
          {"documents", Mask::documents(std::vector<Index>{first, second}),
           [first](Index q, Index k) { return (q < first) == (k < first); }},
          {"blocks", Mask::blocks(tokens, tokens, block, table),
           [=](Index q, Index k) { return kept(q / block, k / block); }}};
}

using test::problem_of;

/// All that run on the device: MPI's own reductions merge on the host.
std::vector<std::string> variants(Problem const& problem, Layouts const& layouts,
                                  AttentionOptions const& options) {
  std::vector<std::string> names = test::all_variants(problem, layouts);
  if (options.device == DeviceKind::cuda) std::erase(names, "tree:native");
  return names;
}

/// The table: element type × mask × strategy at this job's rank count.
TEST(Attention, MatchesTheOracleForEveryTypeMaskAndStrategy) {
  World world(MPI_COMM_WORLD);
  Index const tokens = 301;
  if (world.rank() == 0) {
    std::printf("| ranks | type | mask | strategy | out error | tolerance | lse error | tolerance |\n");
  }
  for (DType const dtype : {DType::f32, DType::bf16, DType::f16}) {
    Shape const shape{.q_tokens = tokens,
                      .kv_tokens = tokens,
                      .q_heads = 4,
                      .kv_heads = 2,
                      .head_dim = 64,
                      .value_dim = 64,
                      .dtype = dtype};
    for (NamedMask const& mask : masks(tokens)) {
      Problem const problem = problem_of(shape, mask.mask);
      Layouts const layouts = make_layouts("auto", mask.mask, world.size());
      for (std::string const& strategy : variants(problem, layouts, test_options(world))) {
        SCOPED_TRACE(std::string(name(dtype)) + ' ' + mask.name + ' ' + strategy);
        AttentionCase run(world, problem, layouts, 17);
        Attention attention(world, make_plan(problem, layouts, strategy), test_options(world));
        run.run(attention);
        Verdict const verdict = run.judge(mask.keeps);
        expect_within(verdict);
        if (world.rank() == 0) {
          std::printf("| %d | %s | %s | %s | %.2e | %.2e | %.2e | %.2e |\n", world.size(),
                      std::string(name(dtype)).c_str(), mask.name.c_str(), strategy.c_str(),
                      verdict.out_error, verdict.out_tolerance, verdict.lse_error, verdict.lse_tolerance);
        }
      }
    }
  }
}

TEST(Attention, RandomProblemsMatchTheOracle) {
  std::uint64_t const seed = test::seed_or(7);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  World world(MPI_COMM_WORLD);
  bool const on_gpu = test_options(world).device == DeviceKind::cuda;
  Random random(seed);  // the same on every rank
  for (int round = 0; round < 24; ++round) {
    Index const q_tokens = uniform(random, 0, 90);
    Index const kv_tokens = round % 2 == 0 ? q_tokens : uniform(random, 0, 120);
    Index const kv_heads = uniform(random, 1, 3);
    Shape const shape{.batch = uniform(random, 1, 2),
                      .q_tokens = q_tokens,
                      .kv_tokens = kv_tokens,
                      .q_heads = kv_heads * uniform(random, 1, 4),
                      .kv_heads = kv_heads,
                      .head_dim = uniform(random, 1, 130),
                      .value_dim = uniform(random, 1, 130),
                      .dtype = static_cast<DType>(uniform(random, 0, 2))};
    Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
    Layouts const layouts = test::random_layouts(random, mask, world.size());
    Problem const problem = problem_of(shape, mask);
    std::vector<std::string> const names = variants(problem, layouts, test_options(world));
    std::string const strategy =
        names[static_cast<std::size_t>(uniform(random, 0, static_cast<Index>(names.size()) - 1))];
    SCOPED_TRACE(testing::Message() << "round " << round << ", " << strategy << ", " << q_tokens << " × "
                                    << kv_tokens << " tokens, D " << shape.head_dim << ", Dv "
                                    << shape.value_dim << ", " << name(shape.dtype));
    AttentionCase run(world, problem, layouts, seed + static_cast<std::uint64_t>(round),
                      uniform(random, 0, 5) * (on_gpu ? 8 : 1));  // in units of 16 bytes, as GPUs want rows
    Attention attention(world, make_plan(problem, layouts, strategy), test_options(world));
    run.run(attention);
    // Mask::keeps is tested against predicates of its own in mask_test.
    expect_within(run.judge([&](Index q, Index k) { return mask.keeps(q, k); }));
  }
}

/// Long enough for key/value blocks to be cut on their way.
TEST(Attention, PiecesOfBlocksMatchTheOracle) {
  World world(MPI_COMM_WORLD);
  Index const tokens = 700 * std::min(world.size(), 4);
  Shape const shape{.q_tokens = tokens, .kv_tokens = tokens, .head_dim = 16, .value_dim = 16};
  Problem const problem = problem_of(shape, Mask::causal(tokens, tokens));
  for (std::string_view const strategy : {"ring", "allgather"}) {
    Layouts const layouts = make_layouts("zigzag", problem.mask, world.size());
    AttentionCase run(world, problem, layouts, 29);
    Attention attention(world, make_plan(problem, layouts, strategy), test_options(world));
    run.run(attention);
    expect_within(run.judge([](Index q, Index k) { return k <= q; }));
  }
}

TEST(Attention, MovesTheBytesOfItsPlanAndRepeatsBitForBit) {
  World world(MPI_COMM_WORLD);
  Shape const shape{
      .q_tokens = 128, .kv_tokens = 128, .q_heads = 8, .kv_heads = 4, .head_dim = 32, .value_dim = 16};
  Problem const problem = problem_of(shape, Mask::causal(128, 128));
  Layouts const layouts = make_layouts("zigzag", problem.mask, world.size());
  for (std::string const& strategy : variants(problem, layouts, test_options(world))) {
    SCOPED_TRACE(strategy);
    Attention attention(world, make_plan(problem, layouts, strategy), test_options(world));
    AttentionCase run(world, problem, layouts, 5);
    EXPECT_EQ(run.run(attention).sent, sent_per_peer(attention.plan(), world.rank()));
    auto const out = run.out();
    auto const lse = run.lse();
    EXPECT_EQ(run.run(attention).sent, sent_per_peer(attention.plan(), world.rank()));
    EXPECT_EQ(out, run.out());
    EXPECT_EQ(std::memcmp(lse.data(), run.lse().data(), lse.size() * sizeof(float)), 0);
    EXPECT_GE(attention.slots_bytes(),
              volume(attention.plan()).slots[static_cast<std::size_t>(world.rank())]);
  }
}

/// Rounding to the element type happens once: however many hops a row's state makes, its error stays.
TEST(Attention, ErrorDoesNotGrowWithTheRanksOfTheRing) {
  World world(MPI_COMM_WORLD);
  Index const tokens = 420;
  for (DType const dtype : {DType::f32, DType::bf16, DType::f16}) {
    Shape const shape{.q_tokens = tokens,
                      .kv_tokens = tokens,
                      .q_heads = 2,
                      .kv_heads = 1,
                      .head_dim = 64,
                      .value_dim = 64,
                      .dtype = dtype};
    Problem const problem = problem_of(shape, Mask::full(tokens, tokens));
    double alone = 0.0;
    for (int ranks = 1; ranks <= world.size(); ++ranks) {
      MPI_Comm part = MPI_COMM_NULL;
      MPI_Comm_split(MPI_COMM_WORLD, world.rank() < ranks ? 0 : 1, world.rank(), &part);
      if (world.rank() < ranks) {
        World few(part);
        Layouts const layouts = make_layouts("contiguous", problem.mask, ranks);
        Attention attention(few, make_plan(problem, layouts, "ring"), test_options(few));
        AttentionCase run(few, problem, layouts, 23);
        run.run(attention);
        Verdict const verdict = run.judge([](Index, Index) { return true; });
        expect_within(verdict);
        if (ranks == 1) alone = verdict.out_rms;
        if (world.rank() == 0) {
          std::printf("ring of %d, %s: out error max %.2e, rms %.3e (%.2f × one rank's)\n", ranks,
                      std::string(name(dtype)).c_str(), verdict.out_error, verdict.out_rms,
                      verdict.out_rms / alone);
          EXPECT_LE(verdict.out_rms, 1.1 * alone) << ranks << " ranks";
        }
      }
      MPI_Comm_free(&part);
    }
  }
}

/// Two attentions of different shape, alternating, then at the same time from two threads.
TEST(Attention, SeveralOfOneWorldInterleave) {
  World world(MPI_COMM_WORLD);
  struct Side {
    Side(World const& world, Shape const& shape, std::string_view strategy)
        : problem(problem_of(shape, Mask::causal(shape.q_tokens, shape.kv_tokens))),
          layouts(make_layouts("zigzag", problem.mask, world.size())),
          attention(world, make_plan(problem, layouts, strategy), test_options(world)),
          run(world, problem, layouts, 31) {}
    Problem problem;
    Layouts layouts;
    Attention attention;
    AttentionCase run;
  };
  Side a(world,
         {.q_tokens = 200, .kv_tokens = 200, .q_heads = 2, .kv_heads = 2, .head_dim = 48, .value_dim = 24},
         "ring");
  Side b(world,
         {.q_tokens = 60,
          .kv_tokens = 150,
          .q_heads = 6,
          .kv_heads = 1,
          .head_dim = 16,
          .value_dim = 64,
          .dtype = DType::f16},
         "passq");
  auto const expect_right = [&] {
    expect_within(a.run.judge([](Index q, Index k) { return k <= q; }));
    expect_within(b.run.judge([](Index q, Index k) { return k <= q + 90; }));
  };
  for (int round = 0; round < 3; ++round) {
    a.run.run(a.attention);
    b.run.run(b.attention);
  }
  expect_right();
  // Two communicators of NCCL on one GPU may wait for each other.
  if (test_options(world).transport == TransportKind::nccl) return;
  auto other = std::async(std::launch::async, [&] {
    for (int round = 0; round < 10; ++round) b.run.run(b.attention);
  });
  for (int round = 0; round < 10; ++round) a.run.run(a.attention);
  other.get();
  expect_right();
}

TEST(Attention, DisagreementShowsWhatDiffersAndWhere) {
  World world(MPI_COMM_WORLD);
  if (world.size() == 1) return;  // one rank agrees with itself
  Shape const shape{.q_tokens = 64, .kv_tokens = 64};
  bool const odd_one = world.rank() == world.size() - 1;
  Problem const problem = problem_of(shape, odd_one ? Mask::causal(64, 64) : Mask::full(64, 64));
  try {
    Attention attention(
        world, make_plan(problem, make_layouts("contiguous", problem.mask, world.size()), "allgather"));
    ADD_FAILURE() << "nothing was thrown";
  } catch (Disagreement const& error) {
    std::string const message = error.what();
    EXPECT_NE(message.find("rank " + std::to_string(world.size() - 1) + ": mask: 1 bands, 2080 pairs"),
              std::string::npos)
        << message;
    EXPECT_NE(message.find(": mask: 1 bands, 4096 pairs"), std::string::npos) << message;
    EXPECT_EQ(message.find("scale"), std::string::npos) << message;
  }
}

TEST(Attention, WrongTensorsAreRefusedByName) {
  World world(MPI_COMM_WORLD);
  Shape const shape{.q_tokens = 64, .kv_tokens = 64};
  Problem const problem = problem_of(shape, Mask::full(64, 64));
  Layouts const layouts = make_layouts("contiguous", problem.mask, world.size());
  Attention attention(world, make_plan(problem, layouts, "ring"), test_options(world));
  AttentionCase run(world, problem, layouts, 1);
  LocalTensors tensors = run.tensors(attention);
  tensors.k.heads = 2;
  try {
    attention.run(tensors);
    ADD_FAILURE() << "nothing was thrown";
  } catch (InvalidProblem const& error) {
    EXPECT_EQ(std::string(error.what()).rfind("this rank's k is f32 [1, ", 0), 0u) << error.what();
  }
  EXPECT_THROW(Attention(world, make_plan(problem, make_layouts("contiguous", problem.mask, world.size() + 1),
                                          "ring")),
               InvalidProblem);
}

TEST(Attention, RecordsATimelineWhenAsked) {
  World world(MPI_COMM_WORLD);
  Shape const shape{.q_tokens = 64, .kv_tokens = 64};
  Problem const problem = problem_of(shape, Mask::full(64, 64));
  Layouts const layouts = make_layouts("contiguous", problem.mask, world.size());
  AttentionOptions options = test_options(world);
  options.record = Record::timeline;
  std::size_t rounds_seen = 0;
  options.progress = [&](std::size_t done, std::size_t) { rounds_seen = done; };
  Attention attention(world, make_plan(problem, layouts, "ring"), options);
  AttentionCase run(world, problem, layouts, 1);
  RunReport const report = run.run(attention);
  auto const count = [&](Event::Kind kind) {
    return std::ranges::count(report.timeline, kind, &Event::kind);
  };
  EXPECT_EQ(count(Event::Kind::fold), world.size());
  EXPECT_EQ(count(Event::Kind::send), world.size() - 1);
  EXPECT_EQ(count(Event::Kind::receive), world.size() - 1);
  EXPECT_EQ(count(Event::Kind::finish), 0);  // the last fold finishes its rows
  EXPECT_EQ(rounds_seen, attention.plan().rounds());
  for (Event const& event : report.timeline) {
    EXPECT_EQ(event.rank, world.rank());
    EXPECT_LE(event.start_seconds, event.end_seconds);
    EXPECT_LE(event.end_seconds, report.seconds);
  }
}

}  // namespace
}  // namespace plait
