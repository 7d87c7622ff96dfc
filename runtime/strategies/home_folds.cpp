#include "home_folds.hpp"

#include <algorithm>

#include "gather.hpp"

namespace plait {

std::vector<HomeFold> meetings(PlanBuilder& plan, int rank) {
  std::vector<HomeFold> found;
  for (BlockId const q : plan.q_blocks(rank)) {
    for (BlockId const kv : plan.kv_blocks(rank)) {
      if (plan.meet(q, kv)) found.push_back({q, kv});
    }
  }
  return found;
}

namespace {

int farthest_host(PlanBuilder& plan, int rank) {
  int farthest = 0;
  for (BlockId const q : plan.q_blocks(rank)) {
    farthest = std::max(farthest, plan.ranks_that_serve(q).last_around({0, plan.ranks()}, rank) - rank);
  }
  return farthest;
}

}  // namespace

HomeFolds home_folds(PlanBuilder& plan, int rank) {
  constexpr Index worth_two_folds = Index{1} << 16;  // pairs: a decoding step has fewer
  Layout const& q = plan.layouts().q;
  HomeFolds folds{.first = meetings(plan, rank),
                  .last = {},
                  .farthest = farthest_host(plan, rank),
                  .alone = q.tokens(rank) == q.tokens()};
  auto const pairs = [&](HomeFold fold) { return plan.pairs(fold.q, fold.kv); };
  Index all = 0;
  for (HomeFold const fold : folds.first) all += pairs(fold);
  // With no states to send home before its own, nothing waits while it folds all of them.
  if (folds.farthest == 0 || folds.alone || all < worth_two_folds) return folds;

  if (folds.first.size() == 1) {
    HomeFold const only = folds.first[0];
    Slice const keys[] = {plan.block(only.kv).slice};
    if (auto const halves = at_least_two(keys); halves.size() == 2) {
      folds.first.clear();
      for (Slice const half : halves) {
        HomeFold const fold{only.q, plan.add_kv(half, plan.block(only.kv).heads, rank)};
        if (plan.meet(fold.q, fold.kv)) folds.first.push_back(fold);
      }
    }
  }
  // Of a causal mask the last half of the keys has a quarter of the pairs.
  Index early = 0;
  auto rest = folds.first.end();
  while (rest != folds.first.begin() && 5 * early < all) early += pairs(*--rest);
  folds.last.assign(folds.first.begin(), rest);
  folds.first.erase(folds.first.begin(), rest);
  return folds;
}

void fold_all(PlanBuilder& plan, std::span<HomeFold const> folds) {
  for (HomeFold const fold : folds) plan.fold_at_home(plan.block(fold.q).home, fold.q, fold.kv, at_rest);
}

}  // namespace plait
