// What crosses the links: bytes of a plan, counted from its steps.
#pragma once

#include <cstdint>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

/// Payload bytes that each rank sends, receives, and holds in slots; headers are not counted, nor what a rank
/// copies to itself. A reduction counts as the least that any does: each part goes to its home.
struct Volume {
  std::vector<std::uint64_t> sent;
  std::vector<std::uint64_t> received;
  std::vector<std::uint64_t> slots;
};

[[nodiscard]] Volume volume(Plan const& plan);

/// Bytes that `rank` sends to each peer; 0 to itself.
[[nodiscard]] std::vector<std::uint64_t> sent_per_peer(Plan const& plan, int rank);

}  // namespace plait
