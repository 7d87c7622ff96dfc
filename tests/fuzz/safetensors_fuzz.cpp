// Fuzzes the safetensors parser: whatever the bytes, it accepts or throws FileError; and what it accepts
// holds.
//
// The first byte of an input chooses its form. Even: the rest is a file. Odd: two bytes little-endian say how
// many bytes of data there are, the rest is the header; so a mutation need not keep a length in step with the
// JSON.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "safetensors.hpp"
#include "utf8.hpp"

namespace {

using namespace plait;

void require(bool holds, char const* law) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", law);
  std::abort();
}

/// Bits of the tensor by its shape; counted up without a product that could wrap.
std::uint64_t bits_of(TensorInfo const& tensor) {
  std::uint64_t bits = size_bits(tensor.dtype);
  for (Index const size : tensor.shape) {
    require(size >= 0, "no dimension is negative");
    if (size == 0) return 0;
  }
  for (Index const size : tensor.shape) {
    require(bits <= UINT64_MAX / static_cast<std::uint64_t>(size), "the bits of a tensor can be counted");
    bits *= static_cast<std::uint64_t>(size);
  }
  return bits;
}

void check_accepted(SafetensorsHeader const& header, std::uint64_t data_bytes) {
  std::uint64_t end = 0;
  std::vector<std::string_view> names;
  for (TensorInfo const& tensor : header.tensors) {
    require(tensor.begin == end, "each tensor begins where the one before ends");
    require(tensor.end >= tensor.begin, "no tensor ends before it begins");
    require((tensor.end - tensor.begin) * 8 == bits_of(tensor),
            "a tensor's range is its shape times its dtype");
    require(first_invalid_utf8(tensor.name) == tensor.name.size(), "names are UTF-8");
    end = tensor.end;
    names.push_back(tensor.name);
  }
  require(end == data_bytes, "the tensors tile the data to their end");
  std::sort(names.begin(), names.end());
  require(std::adjacent_find(names.begin(), names.end()) == names.end(), "no name comes twice");
}

bool same(TensorInfo const& a, TensorInfo const& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
}

/// What was read can be written, and reads as the same.
void check_round_trip(SafetensorsHeader const& header, std::uint64_t data_bytes) {
  std::vector<NewTensor> tensors;
  for (TensorInfo const& tensor : header.tensors)
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape});
  NewHeader const made = make_header(tensors, header.metadata, "made");
  std::string_view const json = std::string_view(made.bytes).substr(safetensors_prefix_bytes);
  SafetensorsHeader const back = parse_header(json, data_bytes, "made");
  require(back == made.header, "a made header reads as what was made");
  require(back.metadata == header.metadata, "metadata come back");
  require(back.tensors.size() == header.tensors.size(), "all tensors come back");
  if (header.tensors.size() > 64) return;  // quadratic below
  for (TensorInfo const& tensor : header.tensors) {
    require(std::any_of(back.tensors.begin(), back.tensors.end(),
                        [&](TensorInfo const& other) { return same(tensor, other); }),
            "each tensor comes back");
  }
}

void parse(std::string_view json, std::uint64_t data_bytes) {
  SafetensorsHeader header;
  try {
    header = parse_header(json, data_bytes, "file");
  } catch (FileError const&) {
    return;
  }
  check_accepted(header, data_bytes);
  check_round_trip(header, data_bytes);
}

void parse_file(std::string_view file) {
  auto const bytes = std::as_bytes(std::span(file));
  std::uint64_t length = 0;
  try {
    length = parse_header_length(bytes.first(std::min<std::size_t>(bytes.size(), 8)), file.size(), "file");
  } catch (FileError const&) {
    return;
  }
  require(length <= file.size() - 8, "the header lies in the file");
  parse(file.substr(8, length), file.size() - 8 - length);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(unsigned char const* data, std::size_t size) {
  std::string_view const input(reinterpret_cast<char const*>(data), size);
  if (input.empty()) return 0;
  if (data[0] % 2 == 0) {
    parse_file(input.substr(1));
  } else if (size >= 3) {
    parse(input.substr(3), static_cast<std::uint64_t>(data[1] | data[2] << 8));
  }
  return 0;
}
