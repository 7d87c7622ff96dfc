// What strategies share in which every rank sends to every other one.
#pragma once

#include <vector>

#include "plait/plan_builder.hpp"

namespace plait {

/// The sends of a round, kept until all are known. A rank sends to its neighbours first, as all do: none is
/// sent to by everyone at once.
class Parcels {
 public:
  explicit Parcels(PlanBuilder& plan) : plan_(plan) {}

  void add(PlanBuilder::Place from, PlanBuilder::Place to, BlockId block);
  /// Sends them in this round, by how far after its sender a receiver is, and those alike as they were added.
  void send();

 private:
  struct Parcel {
    int distance;
    PlanBuilder::Place from;
    PlanBuilder::Place to;
    BlockId block;
  };

  PlanBuilder& plan_;
  std::vector<Parcel> parcels_;
};

/// The `index`-th of so many shares of the heads, as even as they can be.
[[nodiscard]] HeadRange share_of_heads(HeadRange all, int index, int shares);

/// Where heads are spread, rows that see no key need not travel to learn it: they are finished at home, in
/// this round.
void finish_rows_without_keys(PlanBuilder& plan, Mask const& mask);

}  // namespace plait
