// UTF-8 as Unicode defines it (table 3-7 of the standard): no overlong forms, surrogates or values past
// U+10FFFF.
#pragma once

#include <cstddef>
#include <string_view>

namespace plait {

/// Index of the first byte that does not begin a well-formed sequence; text.size() if there is none.
[[nodiscard]] constexpr std::size_t first_invalid_utf8(std::string_view text) {
  auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = 0;
  while (i < text.size()) {
    unsigned const lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    std::size_t const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < length) return i;
    // The second byte's range shuts out overlong forms, surrogates and values past the last code point.
    unsigned const low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned const high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(i + 1) < low || byte(i + 1) > high) return i;
    for (std::size_t k = 2; k < length; ++k) {
      if ((byte(i + k) & 0xc0u) != 0x80) return i;
    }
    i += length;
  }
  return text.size();
}

}  // namespace plait
