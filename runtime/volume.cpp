#include "plait/volume.hpp"

#include <numeric>

namespace plait {

std::vector<std::uint64_t> sent_per_peer(Plan const& plan, int rank) {
  std::vector<std::uint64_t> sent(static_cast<std::size_t>(plan.ranks()));
  for (Transfer const& send : plan.programs[static_cast<std::size_t>(rank)].sends) {
    if (send.peer == rank) continue;
    sent[static_cast<std::size_t>(send.peer)] += bytes(plan.block(send.block), plan.problem.shape);
  }
  for (Reduction const& reduction : plan.programs[static_cast<std::size_t>(rank)].reductions) {
    Block const& state = plan.block(reduction.state);
    if (state.home != rank) sent[static_cast<std::size_t>(state.home)] += bytes(state, plan.problem.shape);
  }
  return sent;
}

Volume volume(Plan const& plan) {
  Volume total;
  auto const sum = [&](std::vector<Transfer> const& transfers, int rank) {
    std::uint64_t all = 0;
    for (Transfer const& transfer : transfers) {
      if (transfer.peer != rank) all += bytes(plan.block(transfer.block), plan.problem.shape);
    }
    return all;
  };
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    Program const& program = plan.programs[static_cast<std::size_t>(rank)];
    total.sent.push_back(sum(program.sends, rank));
    total.received.push_back(sum(program.receives, rank));
    for (Reduction const& reduction : program.reductions) {
      Block const& state = plan.block(reduction.state);
      std::uint64_t const one = bytes(state, plan.problem.shape);
      if (state.home == rank) {
        total.received.back() += one * static_cast<std::uint64_t>(plan.ranks() - 1);
      } else {
        total.sent.back() += one;
      }
    }
    total.slots.push_back(std::accumulate(program.slots.begin(), program.slots.end(), std::uint64_t{0}));
  }
  return total;
}

}  // namespace plait
