#include "exchange.hpp"

#include <algorithm>
#include <utility>

namespace plait {

void Parcels::add(PlanBuilder::Place from, PlanBuilder::Place to, BlockId block) {
  parcels_.push_back({(to.rank - from.rank + plan_.ranks()) % plan_.ranks(), from, to, block});
}

void Parcels::send() {
  std::ranges::stable_sort(parcels_, {}, &Parcel::distance);
  for (auto const& [distance, from, to, block] : std::exchange(parcels_, {})) plan_.send(from, to, block);
}

HeadRange share_of_heads(HeadRange all, int index, int shares) {
  return {all.begin + all.size() * index / shares, all.begin + all.size() * (index + 1) / shares};
}

void finish_rows_without_keys(PlanBuilder& plan, Mask const& mask) {
  for (int const rank : plan.written()) {
    for (BlockId const q : plan.q_blocks(rank)) {
      if (!mask.meets(plan.block(q).slice, {0, mask.kv_tokens()})) plan.finish(rank, q, at_rest, at_rest);
    }
  }
}

}  // namespace plait
