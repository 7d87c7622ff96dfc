// The library's front door: one exact attention over the ranks of a communicator.
//
//   plait::World world(MPI_COMM_WORLD);
//   plait::Attention attention(world, plan);        // agrees on the plan, allocates its slots
//   attention.run({.q = q, .k = k, .v = v, .out = out, .lse = lse});
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "plait/comm_error.hpp"
#include "plait/cpu_device.hpp"
#include "plait/cuda_device.hpp"
#include "plait/planner.hpp"
#include "plait/strategy.hpp"
#include "plait/timeline.hpp"
#include "plait/transport_choice.hpp"
#include "plait/verify.hpp"
#include "plait/volume.hpp"
#include "plait/world.hpp"

namespace plait {

/// This rank's rows, in the order of its layout's slices; tensors without rows may have null data. They lie
/// in the memory of the Attention's device: on a GPU, as Attention::device().allocate gives it, say, and
/// aligned to 16 bytes.
struct LocalTensors {
  TensorView q;           ///< [batch, local queries, q_heads, head_dim]
  TensorView k;           ///< [batch, local keys, kv_heads, head_dim]
  TensorView v;           ///< [batch, local keys, kv_heads, value_dim]
  MutableTensorView out;  ///< [batch, local queries, q_heads, value_dim], of q's dtype
  float* lse = nullptr;   ///< dense [batch, q_heads, local queries], natural log; or null
};

enum class DeviceKind : std::uint8_t { cpu, cuda };

struct AttentionOptions {
  DeviceKind device = DeviceKind::cpu;  ///< the same on every rank
  CpuOptions cpu = {};
  CudaOptions cuda = {};  ///< which GPU: this rank's own
  TransportKind transport = TransportKind::automatic;
  /// Run `verify` on the plan first. Default: for up to 64 ranks.
  enum class Verification : std::uint8_t { up_to_64_ranks, always, never };
  Verification verification = Verification::up_to_64_ranks;
  /// Keep a timeline of each run.
  Record record = Record::nothing;
  /// Called on this rank, by the thread that runs, after each round: (rounds done, rounds in all).
  std::function<void(std::size_t, std::size_t)> progress = nullptr;
};

/// One run, as this rank saw it.
struct RunReport {
  double seconds = 0.0;               ///< from the common start to this rank's last row
  double compute_seconds = 0.0;       ///< in folds, merges and finishes
  double exposed_comm_seconds = 0.0;  ///< waiting for transfers with nothing to compute
  std::vector<std::uint64_t> sent;    ///< payload bytes moved to each peer, counted by the transport
  std::vector<std::uint64_t> received;
  Timeline timeline;  ///< this rank's events, if they are recorded
};

/// One attention of fixed problem, layouts and plan; run it as often as you like, also between runs of
/// others. Every member that talks to other ranks is collective. Keeps no global state. Several Attentions of
/// one World may run at once from several threads, if all ranks make them in the same order.
class [[nodiscard]] Attention {
 public:
  /// Verifies the plan, agrees on it with the other ranks, and allocates its slots.
  /// @throws InvalidProblem, InvalidPlan, Unsupported, NoTransport; Disagreement if ranks differ; PeerLost;
  /// std::bad_alloc
  Attention(World const& world, Plan plan, AttentionOptions options = {});
  ~Attention();
  Attention(Attention&&) noexcept;

  [[nodiscard]] Plan const& plan() const;
  /// Where its tensors lie and its folds run; describes itself ("cpu, AVX-512, 2 threads").
  [[nodiscard]] Device& device() const;
  /// "mpi", and why it was chosen.
  [[nodiscard]] std::string transport() const;
  [[nodiscard]] std::string transport_reason() const;
  /// The kernels that this rank's folds use.
  [[nodiscard]] std::vector<std::string> kernels() const;
  /// Memory that this object owns: the plan's slots, and the device's scratch and tile lists.
  [[nodiscard]] std::uint64_t slots_bytes() const;
  [[nodiscard]] std::uint64_t scratch_bytes() const;

  /// out = attention(q, k, v), this rank's rows. @throws InvalidProblem if a tensor's shape is not the
  /// plan's; CommError if bytes moved differ from the plan; PeerLost. After a CommError only World::abort is
  /// left.
  RunReport run(LocalTensors const& tensors);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait
