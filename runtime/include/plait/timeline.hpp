// What each rank did when: measured by the executor, or predicted by simulate. Feeds traces and reports.
#pragma once

#include <cstdint>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

struct Event {
  enum class Kind : std::uint8_t { fold, merge, finish, wait, send, receive };
  Kind kind = Kind::fold;
  std::int32_t rank = 0;
  std::int32_t peer = -1;  ///< of a send or receive
  std::uint32_t round = 0;
  BlockId block = -1;          ///< kv block of a fold, state of a merge or finish, what travels; −1 = none
  double start_seconds = 0.0;  ///< since the ranks' common start
  double end_seconds = 0.0;
};
[[nodiscard]] std::string_view name(Event::Kind kind);

using Timeline = std::vector<Event>;

}  // namespace plait
