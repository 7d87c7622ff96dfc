#include "plait/volume.hpp"

#include <numeric>

namespace plait {

std::vector<std::uint64_t> sent_per_peer(Plan const& plan, int rank) {
  std::vector<std::uint64_t> sent(static_cast<std::size_t>(plan.ranks()));
  for (Transfer const& send : plan.programs[static_cast<std::size_t>(rank)].sends) {
    sent[static_cast<std::size_t>(send.peer)] += bytes(plan.block(send.block), plan.problem.shape);
  }
  return sent;
}

Volume volume(Plan const& plan) {
  Volume total;
  auto const sum = [&](std::vector<Transfer> const& transfers) {
    std::uint64_t all = 0;
    for (Transfer const& transfer : transfers) all += bytes(plan.block(transfer.block), plan.problem.shape);
    return all;
  };
  for (Program const& program : plan.programs) {
    total.sent.push_back(sum(program.sends));
    total.received.push_back(sum(program.receives));
    total.slots.push_back(std::accumulate(program.slots.begin(), program.slots.end(), std::uint64_t{0}));
  }
  return total;
}

}  // namespace plait
