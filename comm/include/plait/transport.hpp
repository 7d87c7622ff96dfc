// Moves grouped point-to-point messages between regions of memory: one exchange per round of a plan.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "plait/comm_error.hpp"

namespace plait {

/// A contiguous piece of memory.
struct Region {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// Rows of one allocation, as some heads of a tensor's tokens are: `rows` pieces of `width` bytes whose
/// beginnings lie `pitch` apart. One row is a contiguous piece, and has no pitch.
struct StridedRegion {
  std::byte* data = nullptr;
  std::size_t width = 0;
  std::size_t pitch = 0;
  std::size_t rows = 1;

  [[nodiscard]] std::size_t bytes() const { return width * rows; }
  [[nodiscard]] std::byte* row(std::size_t index) const { return data + index * pitch; }
};

/// One block on its way to or from a peer. Its rows are sent in order as one byte stream; sender and receiver
/// may cut the same number of bytes into different rows. 0 bytes are allowed and still move a header.
struct Message {
  int peer = 0;
  std::uint64_t block = 0;  ///< the same number on both sides; checked on arrival
  std::vector<StridedRegion> pieces;

  [[nodiscard]] std::size_t bytes() const {
    std::size_t sum = 0;
    for (StridedRegion const& piece : pieces) sum += piece.bytes();
    return sum;
  }
  /// Whether its bytes lie in one piece, pieces[0], or there are none.
  [[nodiscard]] bool contiguous() const {
    return pieces.empty() || (pieces.size() == 1 && pieces.front().rows == 1);
  }
};

/// The messages of one round. Between one pair of ranks, messages of a round match in order.
struct Exchange {
  std::uint64_t round = 0;
  std::vector<Message> sends;
  std::vector<Message> receives;
};

/// How two elements of so many bytes become one.
struct Operator {
  std::size_t element_bytes = 0;
  /// into ← into ⊕ from, for `count` elements that lie side by side; it commutes.
  std::function<void(std::byte const* from, std::byte* into, std::size_t count)> combine;
};

/// Every rank has elements for every rank, and gets its own, combined over all ranks.
struct ReduceScatter {
  std::uint64_t round = 0;
  std::string what;                 ///< names it in an error
  std::vector<std::size_t> counts;  ///< by rank: its elements; the same on every rank
  Region parts;                     ///< this rank's part of all of them, in the order of the ranks
  Region result;                    ///< this rank's elements, of all ranks' parts
};

/// When one message was in flight; `message` indexes Exchange::sends or ::receives.
struct Flight {
  enum class Direction : std::uint8_t { send, receive } direction;
  std::uint64_t round = 0;
  std::size_t message = 0;
  std::chrono::steady_clock::time_point start = {};
  std::chrono::steady_clock::time_point end = {};
};

/// Payload bytes per peer, headers not counted.
struct Traffic {
  std::vector<std::uint64_t> sent;      ///< indexed by peer rank
  std::vector<std::uint64_t> received;  ///< indexed by peer rank
};

/// Its regions lie in the host's memory, or in one GPU's: then it was made for a queue of that GPU's work (a
/// CUDA stream), exchanges take their place in that queue, and the host need not wait for them.
class Transport {
 public:
  virtual ~Transport() = default;

  [[nodiscard]] virtual std::string describe() const = 0;

  /// Whether a GPU's multiprocessors take part in moving, so that folds beside it should leave them some.
  [[nodiscard]] virtual bool uses_multiprocessors() const { return true; }

  /// How errors call a block ("kv [0, 512) of rank 3"); default "block N". Set before the first start.
  virtual void name_blocks(std::function<std::string(std::uint64_t)> namer) = 0;

  /// Starts a round's messages and returns at once; receives are posted before sends. One exchange at a time.
  /// It follows all work queued before; the regions must stay untouched by the host until finish returns.
  /// `keep_alive` (may be null) is held until no request can touch them any more, also after a failure.
  /// @throws what finish does, where it gets so far
  virtual void start(Exchange exchange, std::shared_ptr<void> keep_alive) = 0;

  /// Work queued from now on follows the exchange that was started; in host memory, the exchange is done.
  /// @throws PeerLost past the world's timeout without progress, CommError on a wrong length, header or MPI
  /// error
  virtual void finish() = 0;

  /// Returns when this rank's result is there; between exchanges. Collective. It counts as the bytes that any
  /// reduce-scatter must move: each rank's part to its rank; what the library under it moves is its own
  /// affair. `combine` may be called on another thread. `keep_alive`: as for start.
  /// @throws PeerLost, CommError, also if this transport has no such thing
  virtual void reduce_scatter(ReduceScatter const&, Operator const&, std::shared_ptr<void> /*keep_alive*/) {
    throw CommError("transport " + describe() + " cannot combine what it moves; mpi between CPU ranks can");
  }

  /// Returns when all that was started has moved. @param what  names it in an error @throws PeerLost,
  /// CommError
  virtual void complete(std::string const& what) = 0;

  /// When each message was in flight, since the last call; after complete.
  [[nodiscard]] virtual std::vector<Flight> take_flights() = 0;

  /// Returns when every rank has called it; between exchanges. @param what  names it in an error
  /// @throws PeerLost, CommError
  virtual void barrier(std::string const& what) = 0;

  /// Payload bytes moved since construction.
  [[nodiscard]] virtual Traffic traffic() const = 0;
};

}  // namespace plait
