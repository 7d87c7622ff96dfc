// One device: the memory, the folds, merges and finishes of one rank. No MPI, no NCCL.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

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

/// A fold's static part, prepared once per plan: its tile list, in the device's memory. Opaque to callers.
class FoldPlan {
 public:
  virtual ~FoldPlan() = default;
  [[nodiscard]] virtual std::size_t bytes() const = 0;  ///< memory that it owns
};

/// A fold's operands. q: [batch, rows, q_heads, head_dim]; k: [batch, keys, kv_heads, head_dim];
/// v: [batch, keys, kv_heads, value_dim]; q_heads is a multiple of kv_heads, and query head h reads
/// key/value head h / (q_heads / kv_heads). All of one dtype, in device memory.
struct FoldOperands {
  TensorView q;
  TensorView k;
  TensorView v;
  StateView state;
  Start start = Start::carried;
  float scale = 1.0f;  ///< multiplies q·k before the softmax (natural exponent)
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

  /// Prepares the fold of blocks q × kv (global slices) under `bands`; bands outside are ignored.
  /// @throws Unsupported if no kernel exists for the head dimensions
  [[nodiscard]] virtual std::unique_ptr<FoldPlan> prepare(Slice q, Slice kv, std::span<Band const> bands,
                                                          Index head_dim, Index value_dim) = 0;

  /// state ← (identity or state) ⊕ attention(q, k, v) under the prepared bands. With Start::identity every
  /// row of the state is written; with Start::carried rows that see no key are neither read nor written.
  virtual void fold(FoldPlan const& plan, FoldOperands const& operands) = 0;

  /// into ← (identity or into) ⊕ from, row by row. The states have the same shape.
  virtual void merge(StateView from, StateView into, Start start) = 0;

  /// out = O / l rounded once to out's dtype, lse = ln 2 · (m + log2 l); rows that saw no key: out 0, lse
  /// −inf.
  /// @param state  a null `m` stands for the identity in every row
  /// @param out  [batch, rows, heads, value_dim]
  /// @param lse  element (b, h, row) at lse[b · lse_batch_stride + h · lse_head_stride + row]; or null
  virtual void finish(StateView state, MutableTensorView out, float* lse, Index lse_batch_stride,
                      Index lse_head_stride) = 0;

  /// Returns when all work given so far is done.
  virtual void synchronize() = 0;
};

}  // namespace plait
