// The version of the library; all ranks of a run must share it.
#pragma once

#include <string_view>

namespace plait {

/// "0.1.0"
[[nodiscard]] std::string_view version();

}  // namespace plait
