// Exchanges between the ranks of a job, by what lies between them, to be timed; also while folds run.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "calibration_steps.hpp"
#include "plait/transport.hpp"
#include "plait/world.hpp"

namespace plait {

/// Hosts with equally many ranks each, consecutive ones.
struct Topology {
  int hosts = 1;
  int ranks_per_host = 1;
};

/// @throws UsageError naming two hosts with different counts, or the rank that is out of order
[[nodiscard]] Topology topology(std::span<Place const> places);

/// What names the running kernel, the same in all containers and network namespaces on it: hosts with one
/// name are one machine. Empty where it cannot be read.
using KernelName = std::array<char, 64>;
[[nodiscard]] KernelName kernel_name();
/// Whether all are one name.
[[nodiscard]] bool same_kernel(std::span<KernelName const> names);

/// Whom a rank sends to and receives from; −1: nobody.
struct Peers {
  int to = -1;
  int from = -1;
};

/// Every rank to the k-th after it on its host.
[[nodiscard]] Peers within_host(Topology const& topology, int rank, int k);
/// Rank l of every host to rank l of the k-th host after it: for all l, or for l = 0 alone.
enum class Senders : std::uint8_t { all, one_per_host };
[[nodiscard]] Peers between_hosts(Topology const& topology, int rank, int k, Senders senders);

/// From rank 0 to rank `to`, one way.
[[nodiscard]] Peers one_way(int rank, int to);

/// One exchange of equal messages, sending and receiving at once, as a round of a plan does it. `device` and
/// `transport` outlive it.
class ExchangeBench {
 public:
  /// @throws std::bad_alloc
  ExchangeBench(Device& device, Transport& transport, Peers const& peers, int messages, std::size_t bytes);

  /// Seconds for so many exchanges, one after the other. @throws PeerLost, CommError
  double operator()(int times);
  /// Seconds for one exchange in which a rank that only receives begins so much later.
  double with_late_receiver(double late_seconds);
  /// Seconds for so many rounds of a plan: a fold while the exchange is under way, and its end.
  double while_folding(FoldBench& fold, int times);

 private:
  /// Seconds until all that `work` has started is done here.
  template <class Work>
  double timed(Work&& work);
  [[nodiscard]] bool takes_part() const { return peers_.to >= 0 || peers_.from >= 0; }
  [[nodiscard]] Exchange exchange() const;

  Device& device_;
  Transport& transport_;
  Peers peers_;
  int messages_;
  std::size_t bytes_;
  std::shared_ptr<DeviceMemory> memory_;  ///< what is sent, then what is received
};

}  // namespace plait
