// What ranks of one host tell each other before their GPUs copy into one another's memory, and whether that
// works.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "../cuda/scratch.hpp"
#include "mailboxes.hpp"
#include "plait/world.hpp"
#include "shared_memory.hpp"

namespace plait {

/// How a rank reaches the others of its host.
class PeerLinks {
 public:
  /// @throws CommError if this process has nothing that others could reach
  explicit PeerLinks(World const& world);

  /// By whom and for whom a flag is written, in the memory of the second.
  struct Way {
    int from = 0;
    int to = 0;
  };
  /// Numbers the exchanges between two ranks: the receiver's memory may be written. Zero at first.
  [[nodiscard]] std::uint64_t* ready(Way way) const { return flags_of(way.to) + 2 * way.from; }
  /// The same: what was sent has been written.
  [[nodiscard]] std::uint64_t* sent(Way way) const { return ready(way) + 1; }

  /// Lets all streams go that wait for this rank's flags: an exchange has failed. @throws CommError
  void let_go() const;

  Mailboxes mail;

 private:
  friend class Introduction;
  /// Flags lie in pairs, one for each rank that may write them.
  [[nodiscard]] std::size_t flag_bytes() const;
  [[nodiscard]] std::uint64_t* flags_of(int rank) const { return flags_[static_cast<std::size_t>(rank)]; }

  World const& world_;
  Scratch own_flags_;
  OpenedMemory opened_;
  std::vector<std::uint64_t*> flags_;  ///< by rank, where this process sees its flags
};

struct PeerIntroduction {
  std::unique_ptr<PeerLinks> links = nullptr;
  std::string refusal = {};  ///< why there are none, in the same words on every rank
};

/// Lets every rank write to every other one's memory, and leave it a note, once. Collective.
/// @throws PeerLost, CommError
[[nodiscard]] PeerIntroduction introduce(World const& world);

}  // namespace plait
