// What can go wrong between ranks. After any of these the job cannot go on: report, then World::abort.
#pragma once

#include <stdexcept>

namespace plait {

/// A failure between ranks: an MPI error, a message with a wrong length or header.
class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// No progress from a peer for the whole timeout, or a peer is known to be gone. The message names rank,
/// host, round, peer, block, and how long the wait was.
class PeerLost : public CommError {
 public:
  using CommError::CommError;
};

/// Ranks were started with different problems; the message shows what differs, and on which ranks.
class Disagreement : public CommError {
 public:
  using CommError::CommError;
};

}  // namespace plait
