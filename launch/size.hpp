// Numbers as flags spell them, and as reports print them.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "plait/slice.hpp"

namespace plait {

/// "2048", "2K", "1M", "3G": a whole number from `least` to `most`, the suffixes binary (2^10, 2^20, 2^30).
/// @param flag  names the flag in the error ("--tokens")
/// @throws UsageError
[[nodiscard]] Index parse_size(std::string_view flag, std::string_view text, Index least = 0,
                               Index most = std::numeric_limits<Index>::max());

/// "n1,n2,…", each from −1 or more on if `least` says so. An empty text is an empty list.
/// @throws UsageError that names the wrong item
[[nodiscard]] std::vector<Index> parse_sizes(std::string_view flag, std::string_view text, Index least);

/// A finite number greater than `above`. @throws UsageError
[[nodiscard]] double parse_real(std::string_view flag, std::string_view text,
                                double above = -std::numeric_limits<double>::infinity());

/// "512 B", "1.50 MiB".
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
/// "812 µs", "1.23 s".
[[nodiscard]] std::string format_seconds(double seconds);

}  // namespace plait
