// Exchanges of a transport are started and finished one at a time: every transport's check.
#pragma once

#include <stdexcept>

namespace plait {

/// @param started  whether the last exchange was started and is not finished @throws std::logic_error if so
inline void require_finished(bool started) {
  if (started) throw std::logic_error("a transport's exchange is started before the last one is finished");
}

/// @param started  as above @throws std::logic_error if not
inline void require_started(bool started) {
  if (!started) throw std::logic_error("a transport's exchange is finished before it is started");
}

}  // namespace plait
