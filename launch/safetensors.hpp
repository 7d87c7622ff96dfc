// The safetensors format: 8 bytes little-endian header length N, N bytes of JSON, data. Strict, and pure:
// bytes in, values out; reading and writing files is tensor_file.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "file_error.hpp"
#include "plait/dtype.hpp"
#include "plait/slice.hpp"

namespace plait {

/// Element types of the format, the sub-byte ones too: any of them may lie in a file beside the tensors that
/// are asked for.
enum class FileDType : std::uint8_t {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  c64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f6_e2m3,
  f6_e3m2,
  f4,
};

/// As the header spells it: "BF16".
[[nodiscard]] std::string_view name(FileDType type);
[[nodiscard]] std::uint64_t size_bits(FileDType type);
[[nodiscard]] FileDType file_dtype(DType type);
/// The type to compute with; nothing for those that attention does not take.
[[nodiscard]] std::optional<DType> compute_dtype(FileDType type);

/// One tensor of a file; its bytes are [begin, end) of the data, which starts after the header. Row-major.
struct TensorInfo {
  std::string name;
  FileDType dtype = FileDType::u8;
  std::vector<Index> shape;  ///< none negative; their product (zeros left out) fits an Index
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  [[nodiscard]] std::uint64_t bytes() const { return end - begin; }
  friend bool operator==(TensorInfo const&, TensorInfo const&) = default;
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< in the order of their data, which they tile without holes
  Metadata metadata;
  friend bool operator==(SafetensorsHeader const&, SafetensorsHeader const&) = default;
};

/// Bytes before the header's JSON: its length.
inline constexpr std::size_t safetensors_prefix_bytes = 8;
/// Longest header that is read or written, as in the reference implementation.
inline constexpr std::uint64_t max_header_bytes = 100'000'000;

/// Length of the header's JSON, from the file's first 8 bytes (fewer if the file is shorter).
/// @param file  names the file in errors
/// @throws FileError if the file is under 8 bytes, or the length is too large or passes the file's end
[[nodiscard]] std::uint64_t parse_header_length(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                                std::string_view file);

/// @param json        the header
/// @param data_bytes  what follows the header in the file
/// @throws FileError  unless the header is UTF-8 JSON of the format (no key twice, no unknown field), and the
///                    tensors tile [0, data_bytes) exactly, each with as many bytes as its shape and dtype
///                    say
[[nodiscard]] SafetensorsHeader parse_header(std::string_view json, std::uint64_t data_bytes,
                                             std::string_view file);

/// What a file to be written holds.
struct NewTensor {
  std::string name;
  FileDType dtype = FileDType::u8;
  std::vector<Index> shape;
};

/// The start of a file with these tensors (length and JSON, padded so that the data begin at a multiple of 8)
/// and where each tensor will lie. Wide elements come first, so that every tensor is aligned to its own.
struct NewHeader {
  std::string bytes;
  SafetensorsHeader header;
};
/// @throws FileError if the tensors could not be read back: a name twice or not UTF-8, a size out of range
[[nodiscard]] NewHeader make_header(std::span<NewTensor const> tensors, Metadata const& metadata,
                                    std::string_view file);

}  // namespace plait
