// All-gathers in fewer rounds than there are other ranks, and in more.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plait/strategy.hpp"
#include "plait/volume.hpp"
#include "strategy_case.hpp"

namespace plait {
namespace {

using test::llama_like;
using test::problem_of;

/// The keys of a fold, as "[0, 100)", in the order of the folds with the queries from `q_begin` on.
std::vector<std::string> keys_folded(Plan const& plan, std::size_t rank, Index q_begin) {
  std::vector<std::string> keys;
  for (Fold const& fold : plan.programs[rank].folds) {
    if (plan.block(fold.q).slice.begin != q_begin) continue;
    Slice const slice = plan.block(fold.kv).slice;
    keys.push_back("[" + std::to_string(slice.begin) + ", " + std::to_string(slice.end) + ")");
  }
  return keys;
}

/// In one round rank 1 of 4 gets 100 keys before its own first 100, and 400 between those and its last 100:
/// three folds beside those of its own keys.
TEST(AllGather, InOneRoundFoldsNeighbouringKeysAtOnce) {
  Problem const problem = problem_of(llama_like(800), Mask::causal(800, 800));
  Layouts const layouts = make_layouts("zigzag", problem.mask, 4);
  Plan const plan = make_plan(problem, layouts, "allgather:1");
  EXPECT_EQ(plan.rounds(), 2u);
  EXPECT_EQ(keys_folded(plan, 1, 100), (std::vector<std::string>{"[100, 200)", "[0, 100)"}));
  EXPECT_EQ(keys_folded(plan, 1, 600),
            (std::vector<std::string>{"[100, 200)", "[600, 700)", "[0, 100)", "[200, 600)"}));
  std::uint64_t const token = 2 * (64 + 64) * 2;
  Volume const moved = volume(plan);
  EXPECT_EQ(moved.received[1], 500 * token);
  EXPECT_EQ(moved.slots[1], 200 * 8 * (64 + 2) * 4 + 500 * token);
}

TEST(AllGather, TakesAsManyRoundsAsAsked) {
  Problem const problem = problem_of(llama_like(1800), Mask::full(1800, 1800));
  Layouts const layouts = make_layouts("contiguous", problem.mask, 9);
  // And one more for the last fold. In 9 rounds the blocks of 8 other ranks come in two pieces each: in 16.
  for (auto const& [name, rounds] : {std::pair{"allgather:1", 2u},
                                     {"allgather:3", 4u},
                                     {"allgather:8", 9u},
                                     {"allgather:each", 9u},
                                     {"allgather:9", 17u}}) {
    EXPECT_EQ(make_plan(problem, layouts, name).rounds(), rounds) << name;
  }
  for (std::string_view const name : {"allgather:0", "allgather:-1", "allgather:two", "allgather:1x2"}) {
    EXPECT_THROW((void)make_plan(problem, layouts, name), InvalidProblem) << name;
  }
}

}  // namespace
}  // namespace plait
