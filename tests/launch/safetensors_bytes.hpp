// Handmade safetensors files, as bytes in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "safetensors.hpp"

namespace plait::testing_bytes {

/// A file with this header and so many bytes of data.
inline std::string with_header(std::string const& json, std::size_t data_bytes) {
  std::string file;
  for (std::uint64_t rest = json.size(), i = 0; i < 8; ++i, rest /= 256)
    file += static_cast<char>(rest % 256);
  return file + json + std::string(data_bytes, '\x5a');
}

/// What the reader makes of a file with these bytes; "f.safetensors" in errors.
inline SafetensorsHeader parse_file(std::string_view file) {
  auto const prefix = std::as_bytes(std::span(file.substr(0, 8)));
  std::uint64_t const length = parse_header_length(prefix, file.size(), "f.safetensors");
  return parse_header(file.substr(8, length), file.size() - 8 - length, "f.safetensors");
}

}  // namespace plait::testing_bytes
