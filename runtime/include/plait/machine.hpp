// The numbers that a simulation needs: how fast ranks fold, and what lies between them.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace plait {

/// What lies between two ranks, each way at once. A message occupies both ranks' ends for
/// message_seconds + bytes / bytes_per_second, and arrives latency_seconds after that.
struct Link {
  double latency_seconds = 20e-6;
  double bytes_per_second = 1e9;
  double message_seconds = 0.0;
  /// What the system takes from a sender before it has gone (socket buffers, eager protocols): a message of
  /// at most so many bytes leaves though its receiver has not begun the round, and a sender goes on when no
  /// more of its bytes than that wait for its end. 0, as on GPUs: both ranks begin, and end, a transfer.
  double buffer_bytes = 0.0;
};

/// A rank's fold takes fold_seconds + flops / rate + row bytes / memory_bytes_per_second + key bytes /
/// key_bytes_per_second: it reads queries and state, and writes the state, and reads keys and values, of the
/// rows and keys that its mask lets meet. The rate is flops_per_second if the fold has row tiles (of
/// tile_rows rows of one head), or parts of them (of 1,024 keys or more), for all of `units`, and in
/// proportion less if it has fewer. On a machine of several units a tile that is not full takes as long as
/// one that is, and keys and values are read beside the products, so that the longer of both counts.
struct Machine {
  std::string name = "flat";
  std::string sources = {};  ///< where the numbers are from
  int ranks_per_node = 1;    ///< consecutive ranks share a node
  double flops_per_second = 50e9;
  double fold_seconds = 0.0;
  int units = 1;  ///< multiprocessors of a GPU; 1 for a CPU rank
  int tile_rows = 128;
  /// Keys by which each row costs more where a band's sloped edge cuts its keys off: tiles visit a few that
  /// the mask drops, and test the others. So a causal block takes more than half of a full one.
  double edge_keys = 0.0;
  double memory_bytes_per_second = 5e9;  ///< of a rank: bytes of queries, states and outputs read and written
  double key_bytes_per_second = 5e9;     ///< of keys and values, which a CPU packs before it multiplies
  double merge_bytes_per_second = 5e9;   ///< of a merge, which computes too
  double step_seconds = 0.0;             ///< of any merge or finish
  Link node = {};                        ///< between ranks of one node
  Link network = {};                     ///< between nodes
  /// What a node's ports carry, each way, for all of its ranks; 0: as much as their links do.
  double port_bytes_per_second = 0.0;
  /// How much longer a rank computes in a round for each byte that it sends or receives meanwhile: copies,
  /// checksums and protocols that run on the cores that fold. 0 on GPUs.
  double host_seconds_per_byte = 0.0;
  /// How much longer it computes in a round in which it sends or receives at all: its threads take turns on
  /// cores that others use too, and ranks wait for each other. 0 on GPUs.
  double round_seconds = 0.0;
  double round_share = 1.0;  ///< but no more than this share of what it computes in the round
  /// The share of its links' speed that a rank gets while it and all of its crowd compute and as many bytes
  /// go each way, where the same cores move bytes. The loss is in proportion to the share of the crowd that
  /// computes, and to the lesser of what it sends and receives over the greater: a rank that only sends in a
  /// round, or only receives, loses nothing. 1 on GPUs.
  double link_share_computing = 1.0;
  /// The share of their speed that links keep between ranks that compute nothing in a round: who waits for
  /// all of its messages waits for the latest, who computes meanwhile does not notice it. 1 on GPUs.
  double link_share_exposed = 1.0;
  /// Consecutive ranks that share cores, so many. All rates above hold while all of them compute; with n of
  /// them computing each is min(alone_speedup, crowd_ranks / n) times as fast.
  int crowd_ranks = 1;
  double alone_speedup = 1.0;
};

/// The machines that come with Plait.
[[nodiscard]] std::span<Machine const> machines();
/// @throws InvalidProblem naming those that exist
[[nodiscard]] Machine machine(std::string_view name);
/// @throws InvalidProblem naming the first number that cannot be
void validate(Machine const& machine);

}  // namespace plait
