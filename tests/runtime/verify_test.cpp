// Mutation tests of the verifier: good plans are broken in every way that a strategy's author could break
// them, and each mutant must be caught.
#include "plait/verify.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "plait/strategy.hpp"
#include "random_problem.hpp"

namespace plait {
namespace {

using test::Random;
using test::uniform;

/// Removes element `index` of an array and moves the cuts after it.
template <class Steps, class End>
void remove_step(Program& program, Steps& list, End end, std::size_t index) {
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(index));
  for (auto& cut : program.ends) {
    if (end(cut) > index) --end(cut);
  }
}

template <class Steps, class End>
void repeat_step(Program& program, Steps& list, End end, std::size_t index) {
  list.insert(list.begin() + static_cast<std::ptrdiff_t>(index), typename Steps::value_type(list[index]));
  for (auto& cut : program.ends) {
    if (end(cut) > index) ++end(cut);
  }
}

auto const fold_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.folds; };
auto const merge_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.merges; };
auto const send_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.sends; };
auto const finish_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.finishes; };
auto const reduction_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.reductions; };
auto const receive_end = [](Program::Cut& cut) -> std::uint32_t& { return cut.receives; };

/// A way to break a plan. Returns false if this plan offers no place for it.
struct Mutation {
  std::string name;
  std::function<bool(Plan&, Random&)> apply;
};

Program& any_program(Plan& plan, Random& random) {
  return plan.programs[static_cast<std::size_t>(uniform(random, 0, plan.ranks() - 1))];
}

/// A random index into `list`, or nothing if it is empty.
template <class List>
std::optional<std::size_t> any_index(List const& list, Random& random) {
  if (list.empty()) return std::nullopt;
  return static_cast<std::size_t>(uniform(random, 0, static_cast<Index>(list.size()) - 1));
}

template <class Steps, class End>
std::function<bool(Plan&, Random&)> drop(Steps Program::*kind, End end) {
  return [=](Plan& plan, Random& random) {
    Program& program = any_program(plan, random);
    auto const index = any_index(program.*kind, random);
    if (index) remove_step(program, program.*kind, end, *index);
    return index.has_value();
  };
}

template <class Steps, class End>
std::function<bool(Plan&, Random&)> twice(Steps Program::*kind, End end) {
  return [=](Plan& plan, Random& random) {
    Program& program = any_program(plan, random);
    auto const index = any_index(program.*kind, random);
    if (index) repeat_step(program, program.*kind, end, *index);
    return index.has_value();
  };
}

/// Changes a random step by `change`, which returns false if it cannot.
template <class Steps>
std::function<bool(Plan&, Random&)> alter(
    Steps Program::*kind, std::function<bool(Plan&, Program&, typename Steps::value_type&, Random&)> change) {
  return [=](Plan& plan, Random& random) {
    Program& program = any_program(plan, random);
    auto const index = any_index(program.*kind, random);
    return index && change(plan, program, (program.*kind)[*index], random);
  };
}

bool other_slot(Program const& program, SlotId& slot, Random& random) {
  SlotId const before = slot;
  slot = static_cast<SlotId>(uniform(random, -1, static_cast<Index>(program.slots.size()) - 1));
  return slot != before;
}

bool other_block(Plan const& plan, BlockId& block, Random& random) {
  BlockId const before = block;
  block = static_cast<BlockId>(uniform(random, 0, static_cast<Index>(plan.blocks.size()) - 1));
  // Two ranks may gather the same rows: blocks of different numbers, but equal.
  return !(plan.block(block) == plan.block(before)) && plan.block(block).tensor == plan.block(before).tensor;
}

/// Moves the boundary of one round by one step: a step runs a round earlier or later.
template <class End>
std::function<bool(Plan&, Random&)> shift(End end) {
  return [=](Plan& plan, Random& random) {
    Program& program = any_program(plan, random);
    if (program.rounds() < 2) return false;
    auto const round = static_cast<std::size_t>(uniform(random, 0, static_cast<Index>(program.rounds()) - 2));
    std::uint32_t& here = end(program.ends[round]);
    std::uint32_t const before = round == 0 ? 0 : end(program.ends[round - 1]);
    std::uint32_t const after = end(program.ends[round + 1]);
    bool const later = uniform(random, 0, 1) == 0;
    if (later ? here == before : here == after) return false;
    here = later ? here - 1 : here + 1;
    return true;
  };
}

/// The mutations after which a plan is wrong for certain, whatever plan it was.
std::vector<Mutation> mutations() {
  return {
      {"drop a fold", drop(&Program::folds, fold_end)},
      {"double a fold", twice(&Program::folds, fold_end)},
      {"drop a merge", drop(&Program::merges, merge_end)},
      {"double a merge", twice(&Program::merges, merge_end)},
      {"drop a send", drop(&Program::sends, send_end)},
      {"double a send", twice(&Program::sends, send_end)},
      {"drop a receive", drop(&Program::receives, receive_end)},
      {"double a receive", twice(&Program::receives, receive_end)},
      {"send a round earlier or later", shift(send_end)},
      {"receive a round earlier or later", shift(receive_end)},
      {"send to another rank", alter<std::vector<Transfer>>(
                                   &Program::sends,
                                   [](Plan& plan, Program&, Transfer& send, Random& random) {
                                     std::int32_t const before = send.peer;
                                     send.peer = static_cast<std::int32_t>(uniform(random, 0, plan.ranks() - 1));
                                     return send.peer != before;
                                   })},
      {"send another block", alter<std::vector<Transfer>>(
                                 &Program::sends,
                                 [](Plan& plan, Program&, Transfer& send, Random& random) {
                                   return other_block(plan, send.block, random);
                                 })},
      {"send from another slot", alter<std::vector<Transfer>>(
                                     &Program::sends,
                                     [](Plan&, Program& program, Transfer& send, Random& random) {
                                       return other_slot(program, send.slot, random);
                                     })},
      {"swap the blocks of two sends",
       [](Plan& plan, Random& random) {
         auto& sends = any_program(plan, random).sends;
         auto const a = any_index(sends, random);
         auto const b = any_index(sends, random);
         if (!a || sends[*a].block == sends[*b].block) return false;
         std::swap(sends[*a].block, sends[*b].block);
         return true;
       }},
      {"receive into another slot", alter<std::vector<Transfer>>(
                                        &Program::receives,
                                        [](Plan&, Program& program, Transfer& receive, Random& random) {
                                          return other_slot(program, receive.slot, random);
                                        })},
      {"fold another key block", alter<std::vector<Fold>>(
                                     &Program::folds,
                                     [](Plan& plan, Program&, Fold& fold, Random& random) {
                                       return other_block(plan, fold.kv, random);
                                     })},
      {"fold another query block", alter<std::vector<Fold>>(
                                       &Program::folds,
                                       [](Plan& plan, Program&, Fold& fold, Random& random) {
                                         return other_block(plan, fold.q, random);
                                       })},
      {"fold keys from another slot", alter<std::vector<Fold>>(
                                          &Program::folds,
                                          [](Plan&, Program& program, Fold& fold, Random& random) {
                                            return other_slot(program, fold.kv_slot, random);
                                          })},
      {"fold queries from another slot", alter<std::vector<Fold>>(
                                             &Program::folds,
                                             [](Plan&, Program& program, Fold& fold, Random& random) {
                                               return other_slot(program, fold.q_slot, random);
                                             })},
      {"fold into another slot", alter<std::vector<Fold>>(
                                     &Program::folds,
                                     [](Plan&, Program& program, Fold& fold, Random& random) {
                                       return other_slot(program, fold.state, random);
                                     })},
      {"flip where a fold starts", alter<std::vector<Fold>>(
                                       &Program::folds,
                                       [](Plan&, Program&, Fold& fold, Random&) {
                                         fold.start = fold.start == Start::carried ? Start::identity : Start::carried;
                                         return true;
                                       })},
      {"flip where a merge starts", alter<std::vector<Merge>>(
                                        &Program::merges,
                                        [](Plan&, Program&, Merge& merge, Random&) {
                                          merge.start =
                                              merge.start == Start::carried ? Start::identity : Start::carried;
                                          return true;
                                        })},
      {"merge from another slot", alter<std::vector<Merge>>(
                                      &Program::merges,
                                      [](Plan&, Program& program, Merge& merge, Random& random) {
                                        return other_slot(program, merge.from, random);
                                      })},
      {"merge into another slot",
       alter<std::vector<Merge>>(&Program::merges,
                                 [](Plan&, Program& program, Merge& merge, Random& random) {
                                   // Into a state that is merged further would be right too.
                                   return other_slot(program, merge.into, random) &&
                                          std::ranges::none_of(program.merges, [&](Merge const& other) {
                                            return other.from == merge.into;
                                          });
                                 })},
      {"drop a finish", drop(&Program::finishes, finish_end)},
      {"double a finish", twice(&Program::finishes, finish_end)},
      {"finish another slot", alter<std::vector<Finish>>(
                                  &Program::finishes,
                                  [](Plan&, Program& program, Finish& finish, Random& random) {
                                    return other_slot(program, finish.from, random);
                                  })},
      {"finish into another slot", alter<std::vector<Finish>>(
                                       &Program::finishes,
                                       [](Plan&, Program& program, Finish& finish, Random& random) {
                                         return other_slot(program, finish.into, random);
                                       })},
      {"finish another block", alter<std::vector<Finish>>(
                                   &Program::finishes,
                                   [](Plan& plan, Program&, Finish& finish, Random& random) {
                                     return other_block(plan, finish.out, random);
                                   })},
      {"finish on another rank",
       [](Plan& plan, Random& random) {
         Program& from = any_program(plan, random);
         Program& to = any_program(plan, random);
         if (&from == &to || from.finishes.empty()) return false;
         to.finishes.push_back(from.finishes.back());
         to.ends.back().finishes += 1;
         remove_step(from, from.finishes, finish_end, from.finishes.size() - 1);
         return true;
       }},
      {"drop a reduction", drop(&Program::reductions, reduction_end)},
      {"double a reduction", twice(&Program::reductions, reduction_end)},
      {"reduce a round earlier or later", shift(reduction_end)},
      {"reduce another block", alter<std::vector<Reduction>>(
                                   &Program::reductions,
                                   [](Plan& plan, Program&, Reduction& reduction, Random& random) {
                                     return other_block(plan, reduction.state, random);
                                   })},
      {"reduce from another slot", alter<std::vector<Reduction>>(
                                       &Program::reductions,
                                       [](Plan&, Program& program, Reduction& reduction, Random& random) {
                                         return other_slot(program, reduction.from, random);
                                       })},
      {"reduce into another slot", alter<std::vector<Reduction>>(
                                       &Program::reductions,
                                       [](Plan&, Program& program, Reduction& reduction, Random& random) {
                                         return other_slot(program, reduction.into, random);
                                       })},
      {"swap two reductions on all ranks",
       [](Plan& plan, Random& random) {
         auto const& first = plan.programs.front().reductions;
         auto const a = any_index(first, random);
         auto const b = any_index(first, random);
         if (!a || plan.block(first[*a].state).home == plan.block(first[*b].state).home) return false;
         for (Program& program : plan.programs) std::swap(program.reductions[*a], program.reductions[*b]);
         return true;
       }},
      {"shrink a slot",
       [](Plan& plan, Random& random) {
         auto& slots = any_program(plan, random).slots;
         auto const index = any_index(slots, random);
         if (index) --slots[*index];
         return index.has_value();
       }},
      {"grow a slot",
       [](Plan& plan, Random& random) {
         auto& slots = any_program(plan, random).slots;
         auto const index = any_index(slots, random);
         if (index) ++slots[*index];
         return index.has_value();
       }},
      {"add a slot that nothing uses",
       [](Plan& plan, Random& random) {
         any_program(plan, random).slots.push_back(64);
         return true;
       }},
      {"point outside the slots", alter<std::vector<Fold>>(
                                      &Program::folds,
                                      [](Plan&, Program& program, Fold& fold, Random&) {
                                        fold.state = static_cast<SlotId>(program.slots.size());
                                        return true;
                                      })},
      {"drop a round of one rank",
       [](Plan& plan, Random& random) {
         Program& program = any_program(plan, random);
         if (plan.ranks() == 1 || program.ends.size() < 2) return false;
         program.ends.erase(program.ends.begin());
         return true;
       }},
  };
}

Plan random_plan(Random& random) {
  Index const q_tokens = uniform(random, 1, 50);
  Index const kv_tokens = uniform(random, 0, 1) == 0 ? q_tokens : uniform(random, 1, 50);
  int const ranks = static_cast<int>(uniform(random, 2, 6));
  Mask const mask = test::random_mask(random, q_tokens, kv_tokens);
  Shape const shape{.q_tokens = q_tokens,
                    .kv_tokens = kv_tokens,
                    .q_heads = 4,
                    .kv_heads = 2,
                    .head_dim = 8,
                    .value_dim = 4};
  Problem const problem{.shape = shape, .mask = mask, .scale = 1.0};
  Layouts const layouts = test::random_layouts(random, mask, ranks);
  std::vector<std::string> const all = test::all_variants(problem, layouts);
  auto const which = static_cast<std::size_t>(uniform(random, 0, static_cast<Index>(all.size()) - 1));
  return make_plan(problem, layouts, all[which]);
}

TEST(Verify, CatchesEveryMutant) {
  std::uint64_t const seed = test::seed_or(5);
  SCOPED_TRACE(testing::Message() << "PLAIT_SEED=" << seed);
  Random random(seed);
  std::map<Law, int> first_law;
  int made = 0;
  int caught = 0;
  for (Mutation const& mutation : mutations()) {
    int of_this_kind = 0;
    for (int attempt = 0; attempt < 16000 && of_this_kind < 100; ++attempt) {
      Plan plan = random_plan(random);
      ASSERT_TRUE(verify(plan).empty()) << "the plan is wrong before the mutation";
      if (!mutation.apply(plan, random)) continue;
      ++of_this_kind;
      ++made;
      auto const violations = verify(plan);
      EXPECT_FALSE(violations.empty()) << "missed: " << mutation.name << " of a " << plan.strategy
                                       << " plan over " << plan.ranks() << " ranks";
      if (violations.empty()) continue;
      ++caught;
      ++first_law[violations.front().law];
    }
    EXPECT_EQ(of_this_kind, 100) << mutation.name << " found too few places";
  }
  std::string laws;
  for (Law const law : {Law::coverage, Law::residency, Law::matching, Law::homecoming, Law::memory}) {
    EXPECT_GT(first_law[law], 0) << "no mutant broke " << name(law);
    laws += ' ' + std::string(name(law)) + ' ' + std::to_string(first_law[law]);
  }
  std::printf("mutants made %d, caught %d; first law broken:%s\n", made, caught, laws.c_str());
}

TEST(Verify, NamesRankRoundAndBlock) {
  Mask const mask = Mask::full(40, 40);
  Problem const problem{.shape = {.q_tokens = 40, .kv_tokens = 40}, .mask = mask, .scale = 1.0};
  Plan plan = make_plan(problem, make_layouts("contiguous", mask, 4), "ring");
  plan.programs[2].folds[1].kv_slot = at_rest;
  auto const violations = verify(plan);
  ASSERT_FALSE(violations.empty());
  EXPECT_EQ(violations.front().law, Law::residency);
  EXPECT_EQ(violations.front().message,
            "rank 2, round 1: a fold reads kv [10, 20) heads [0, 1) of rank 1 at rest, which is not the "
            "rank's own");
  EXPECT_THROW(require_verified(plan), InvalidPlan);
}

}  // namespace
}  // namespace plait
