// One device: the memory, the folds, merges and finishes of one rank. No MPI, no NCCL.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "plait/band.hpp"
#include "plait/state.hpp"
#include "plait/tensor.hpp"

namespace plait {

/// What a device cannot do; the message names the value and what would work.
class Unsupported : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Whether an operation reads the state it writes, or starts from the identity (−inf, 0, 0).
enum class Start : std::uint8_t { identity, carried };

/// What of a fold is known before it runs.
struct FoldShape {
  Slice q;                      ///< the query block's rows, global
  Slice kv;                     ///< the key/value block's rows, global
  std::span<Band const> bands;  ///< disjoint, in global positions; parts outside q × kv are ignored
  DType dtype = DType::f32;
  Index head_dim = 0;
  Index value_dim = 0;
  /// Query heads of all batch entries, and of each key/value head; 0: not known. Where there are few rows and
  /// heads for the device it may want to know, and the fold must then be run with so many.
  Index lanes = 0;
  Index group = 0;
  Start start = Start::identity;  ///< of the state: read and written, or written
  bool finishes = false;          ///< the fold writes the output: rows without a key are visited too
};

/// A fold's static part, prepared once per plan: how it starts, and its tile list, in the device's memory.
/// Opaque to callers.
class FoldPlan {
 public:
  virtual ~FoldPlan() = default;
  [[nodiscard]] virtual std::size_t bytes() const = 0;   ///< memory that it owns
  [[nodiscard]] virtual std::string kernel() const = 0;  ///< for people: which kernel will run
};

/// Where finished rows go: out = O / l, lse = ln 2 · (m + log2 l).
struct Output {
  MutableTensorView out;  ///< [batch, rows, q_heads, value_dim], of any dtype
  /// Element (b, h, row) at lse[b · lse_batch_stride + h · lse_head_stride + row · lse_row_stride]; or null.
  float* lse = nullptr;
  Index lse_batch_stride = 0;
  Index lse_head_stride = 0;
  Index lse_row_stride = 1;
};

/// A fold's operands. q: [batch, rows, q_heads, head_dim]; k: [batch, keys, kv_heads, head_dim];
/// v: [batch, keys, kv_heads, value_dim]; q_heads is a multiple of kv_heads, and query head h reads
/// key/value head h / (q_heads / kv_heads). All of one dtype, in device memory.
struct FoldOperands {
  TensorView q;
  TensorView k;
  TensorView v;
  StateView state;
  float scale = 1.0f;  ///< multiplies q·k before the softmax (natural exponent)
  /// Set iff the prepared fold `finishes`: the rows are rounded once to the output instead of to the state,
  /// which is left in an unspecified condition.
  std::optional<Output> output = std::nullopt;
  /// Whether transfers are under way whose own work on the device should not have to wait for the fold's end.
  bool beside_transfers = false;
};

/// Memory of a device, owned. Freed when destroyed.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  [[nodiscard]] virtual std::byte* data() const = 0;
  [[nodiscard]] virtual std::size_t bytes() const = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  /// For people: "cpu, AVX-512, 2 threads".
  [[nodiscard]] virtual std::string describe() const = 0;

  /// Memory aligned to 64 bytes or more. @throws std::bad_alloc
  [[nodiscard]] virtual std::unique_ptr<DeviceMemory> allocate(std::size_t bytes) = 0;

  /// Memory that the device itself holds for scratch; fixed after the first prepare of a shape.
  [[nodiscard]] virtual std::size_t scratch_bytes() const = 0;

  /// Chooses the kernel and makes its tile list.
  /// @throws Unsupported if no kernel exists for the head dimensions
  [[nodiscard]] virtual std::unique_ptr<FoldPlan> prepare(FoldShape const& shape) = 0;

  /// state ← (identity or state) ⊕ attention(q, k, v) under the prepared bands. With Start::identity every
  /// row of the state is written; with Start::carried rows that see no key are neither read nor written.
  /// With an output, every row of it is written.
  virtual void fold(FoldPlan const& plan, FoldOperands const& operands) = 0;

  /// into ← (identity or into) ⊕ from, row by row. The states have the same shape.
  virtual void merge(StateView from, StateView into, Start start) = 0;

  /// out = O / l rounded once to out's dtype, lse = ln 2 · (m + log2 l); rows that saw no key: out 0, lse
  /// −inf.
  /// @param state  a null `m` stands for the identity in every row
  virtual void finish(StateView state, Output const& output) = 0;

  /// Copies between the host's memory and the device's, after the work given so far; the host's memory may be
  /// changed or read when the call returns. `from` or `to` is the device's.
  virtual void upload(std::span<std::byte const> from, std::byte* to) = 0;
  virtual void download(std::byte const* from, std::span<std::byte> to) = 0;

  /// The cudaStream_t that its work is queued on; null where calls return when their work is done.
  [[nodiscard]] virtual void* stream() const = 0;

  /// Notes when the work given so far will have been done. @returns the mark's index
  virtual std::size_t mark() = 0;
  /// The time of every mark since the last call, in order; waits for them.
  [[nodiscard]] virtual std::vector<std::chrono::steady_clock::time_point> take_marks() = 0;

  /// Returns when all work given so far is done. @throws std::runtime_error if some of it failed
  virtual void synchronize() = 0;
};

}  // namespace plait
