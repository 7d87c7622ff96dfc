// Which ranks exchange with which while links are measured.
#include "calibration_links.hpp"

#include <gtest/gtest.h>

#include "exit_code.hpp"

namespace plait {
namespace {

/// Ranks on the given nodes, in rank order.
std::vector<Place> places(std::vector<int> const& nodes) {
  std::vector<Place> result;
  for (int const node : nodes) {
    result.push_back({.rank = static_cast<int>(result.size()),
                      .pid = 1,
                      .node = node,
                      .local_rank = 0,
                      .host = "host" + std::to_string(node)});
  }
  return result;
}

std::string refusal(std::vector<int> const& nodes) {
  try {
    (void)topology(places(nodes));
  } catch (UsageError const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Topology, HostsOnOneKernelAreOneMachine) {
  KernelName const here = kernel_name();
  KernelName const other{'o', 't', 'h', 'e', 'r'};
  std::vector<KernelName> names = {here, here, here};
  EXPECT_EQ(same_kernel(names), here != KernelName{});
  names[2] = other;
  EXPECT_FALSE(same_kernel(names));
  EXPECT_TRUE(same_kernel(std::vector<KernelName>{other, other}));
  EXPECT_FALSE(same_kernel(std::vector<KernelName>(2)));  // unknown
}

TEST(Topology, HostsOfEqualSize) {
  Topology const found = topology(places({0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(found.hosts, 2);
  EXPECT_EQ(found.ranks_per_host, 3);
  EXPECT_EQ(topology(places({0})).hosts, 1);
  EXPECT_EQ(topology(places({0, 1, 2, 3})).ranks_per_host, 1);
}

TEST(Topology, RefusesWhatAMachineCannotSay) {
  EXPECT_NE(refusal({0, 0, 1}).find("2 ranks on host0, 1 on host1"), std::string::npos) << refusal({0, 0, 1});
  EXPECT_NE(refusal({0, 1, 0, 1}).find("rank 1 is on host1"), std::string::npos) << refusal({0, 1, 0, 1});
}

TEST(Topology, OneWayIsFromTheFirstRankToOneOther) {
  EXPECT_EQ(one_way(0, 2).to, 2);
  EXPECT_EQ(one_way(0, 2).from, -1);
  EXPECT_EQ(one_way(2, 2).to, -1);
  EXPECT_EQ(one_way(2, 2).from, 0);
  EXPECT_EQ(one_way(1, 2).to, -1);
  EXPECT_EQ(one_way(1, 2).from, -1);
}

/// Whom a rank sends to receives from it, within a host or between hosts as asked.
TEST(Topology, SendersAndReceiversMatch) {
  for (Topology const shape : {Topology{1, 1}, Topology{1, 5}, Topology{2, 1}, Topology{3, 4}}) {
    int const ranks = shape.hosts * shape.ranks_per_host;
    auto const host = [&](int rank) { return rank / shape.ranks_per_host; };
    for (int rank = 0; rank < ranks; ++rank) {
      for (int k = 1; k < shape.ranks_per_host; ++k) {
        Peers const peers = within_host(shape, rank, k);
        EXPECT_EQ(within_host(shape, peers.to, k).from, rank);
        EXPECT_EQ(host(peers.to), host(rank));
        EXPECT_NE(peers.to, rank);
      }
      for (int k = 1; k < shape.hosts; ++k) {
        Peers const peers = between_hosts(shape, rank, k, Senders::all);
        EXPECT_EQ(between_hosts(shape, peers.to, k, Senders::all).from, rank);
        EXPECT_NE(host(peers.to), host(rank));
        bool const first = rank % shape.ranks_per_host == 0;
        EXPECT_EQ(between_hosts(shape, rank, k, Senders::one_per_host).to, first ? peers.to : -1);
      }
    }
  }
}

}  // namespace
}  // namespace plait
