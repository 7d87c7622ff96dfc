#include "safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "utf8.hpp"

namespace plait {
namespace {

using Json = nlohmann::json;

struct DTypeRow {
  FileDType type;
  std::string_view name;
  std::uint64_t bits;
};

constexpr std::array dtype_rows{
    DTypeRow{FileDType::boolean, "BOOL", 8},
    DTypeRow{FileDType::u8, "U8", 8},
    DTypeRow{FileDType::i8, "I8", 8},
    DTypeRow{FileDType::u16, "U16", 16},
    DTypeRow{FileDType::i16, "I16", 16},
    DTypeRow{FileDType::u32, "U32", 32},
    DTypeRow{FileDType::i32, "I32", 32},
    DTypeRow{FileDType::u64, "U64", 64},
    DTypeRow{FileDType::i64, "I64", 64},
    DTypeRow{FileDType::f16, "F16", 16},
    DTypeRow{FileDType::bf16, "BF16", 16},
    DTypeRow{FileDType::f32, "F32", 32},
    DTypeRow{FileDType::f64, "F64", 64},
    DTypeRow{FileDType::c64, "C64", 64},
    DTypeRow{FileDType::f8_e4m3, "F8_E4M3", 8},
    DTypeRow{FileDType::f8_e5m2, "F8_E5M2", 8},
    DTypeRow{FileDType::f8_e8m0, "F8_E8M0", 8},
    DTypeRow{FileDType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    DTypeRow{FileDType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    DTypeRow{FileDType::f6_e2m3, "F6_E2M3", 6},
    DTypeRow{FileDType::f6_e3m2, "F6_E3M2", 6},
    DTypeRow{FileDType::f4, "F4", 4},
};

constexpr std::uint64_t max_index = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());

DTypeRow const& row(FileDType type) {
  return *std::ranges::find(dtype_rows, type, &DTypeRow::type);
}

std::string dtype_names() {
  std::string names;
  for (DTypeRow const& each : dtype_rows) {
    names += names.empty() ? "" : ", ";
    names += each.name;
  }
  return names;
}

/// A key or value from the file, made fit for one line of a terminal: escaped, and cut if it is long.
std::string shown(std::string_view text) {
  constexpr std::size_t longest = 120;
  std::string escaped = Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
  if (escaped.size() > longest) escaped.replace(longest - 4, std::string::npos, "...\"");
  return escaped;
}

std::string shown(std::vector<Index> const& shape) {
  constexpr std::size_t most = 16;
  auto const first = std::span(shape).first(std::min(shape.size(), most));
  return fmt::format("[{}{}]", fmt::join(first, ", "), shape.size() > most ? ", ..." : "");
}

/// Bytes of a tensor. The product leaves zeros out: a shape whose other dimensions overflow would have
/// strides that do, whatever the place of its zero, and the element count must not wrap to a small number.
std::uint64_t tensor_bytes(TensorInfo const& tensor, std::string_view file) {
  std::uint64_t elements = 1;
  bool empty = false;
  for (Index const size : tensor.shape) {
    empty = empty || size == 0;
    if (size != 0 && (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(size), &elements) ||
                      elements > max_index)) {
      throw FileError(fmt::format("{}: tensor {}: the number of elements of shape {} passes 2^63 - 1", file,
                                  shown(tensor.name), shown(tensor.shape)));
    }
  }
  std::uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, size_bits(tensor.dtype), &bits)) {
    throw FileError(fmt::format("{}: tensor {}: shape {} of {} passes 2^64 - 1 bits", file,
                                shown(tensor.name), shown(tensor.shape), name(tensor.dtype)));
  }
  if (empty) return 0;
  if (bits % 8 != 0) {
    throw FileError(fmt::format("{}: tensor {}: shape {} of {} is {} bits, not a whole number of bytes", file,
                                shown(tensor.name), shown(tensor.shape), name(tensor.dtype), bits));
  }
  return bits / 8;
}

/// Builds a header from the parser's events, and refuses with the place at hand. Nothing recurses: the only
/// nesting that is accepted is object, object, array.
class HeaderEvents {
 public:
  explicit HeaderEvents(std::string_view file) : file_(file) {}

  bool null() { return scalar("null"); }
  bool boolean(bool value) { return scalar(value ? "true" : "false"); }
  bool number_integer(Json::number_integer_t value) {  // the parser gives only negative numbers here, and -0
    if (depth_ == 3) {
      refuse(
          fmt::format("{} is negative; accepted: 0 to 2^63 - 1", value == 0 ? "-0" : std::to_string(value)));
    }
    return scalar("a number");
  }
  bool number_unsigned(Json::number_unsigned_t value) {
    if (depth_ != 3) return scalar("a number");
    if (value > max_index) refuse(fmt::format("{} is out of range; accepted: 0 to 2^63 - 1", value));
    if (field_ == "shape") {
      tensor_.shape.push_back(static_cast<Index>(value));
    } else if (offsets_.size() == 2) {
      refuse("has more than two numbers; expected [begin, end]");
    } else {
      offsets_.push_back(value);
    }
    return true;
  }
  bool number_float(Json::number_float_t, std::string const& text) {
    if (depth_ != 3) return scalar("a number");
    bool const whole = text.find_first_of(".eE") == std::string::npos;
    char const* const fault = !whole                  ? "is not an integer"
                              : text.starts_with('-') ? "is negative"
                                                      : "is out of range";
    refuse(fmt::format("{} {}; accepted: 0 to 2^63 - 1", text.substr(0, 40), fault));
  }
  bool string(std::string& value) {
    if (depth_ == 2 && in_metadata_) {
      metadata_[field_] = std::move(value);
    } else if (depth_ == 2 && field_ == "dtype") {
      auto const found = std::ranges::find(dtype_rows, std::string_view(value), &DTypeRow::name);
      if (found == dtype_rows.end()) {
        refuse(fmt::format("{} is unknown; accepted: {}", shown(value), dtype_names()));
      }
      tensor_.dtype = found->type;
    } else {
      return scalar("a string");
    }
    return true;
  }
  bool binary(Json::binary_t&) { return scalar("binary"); }

  bool start_object(std::size_t) {
    if (depth_ >= 2) return open("an object");
    if (depth_ == 1) {
      tensor_ = {};
      tensor_.name = name_;
      offsets_.clear();
      fields_.clear();
    }
    ++depth_;
    field_.clear();
    return true;
  }
  bool key(std::string& text) {
    if (depth_ == 1) {
      field_.clear();
      if (!names_.insert(text).second)
        throw FileError(fmt::format("{}: duplicate key {}", file_, shown(text)));
      in_metadata_ = text == "__metadata__";
      name_ = std::move(text);
      return true;
    }
    field_ = std::move(text);
    if (!fields_.insert(field_).second) refuse("duplicate key");
    if (!in_metadata_ && field_ != "dtype" && field_ != "shape" && field_ != "data_offsets") {
      refuse("unknown field; accepted: dtype, shape, data_offsets");
    }
    return true;
  }
  bool end_object() {
    --depth_;
    field_.clear();
    if (depth_ == 1 && !in_metadata_) finish_tensor();
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype") return open("an array");
    ++depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    if (field_ == "data_offsets" && offsets_.size() != 2) {
      refuse(fmt::format("has {} numbers; expected two, [begin, end]", offsets_.size()));
    }
    return true;
  }
  bool parse_error(std::size_t position, std::string const& token, Json::exception const& error) {
    std::string_view const what = error.what();
    auto const detail = what.find(": ");  // after the library's own error number and position
    throw FileError(fmt::format("{}: invalid JSON in the header at byte {}, near {}: {}", file_, position,
                                shown(token), detail == what.npos ? what : what.substr(detail + 2)));
  }

  [[nodiscard]] SafetensorsHeader take() { return {std::move(tensors_), std::move(metadata_)}; }

 private:
  [[noreturn]] void refuse(std::string_view fault) const {
    std::string const place = field_.empty() ? "" : fmt::format(": {}", shown(field_));
    if (in_metadata_) throw FileError(fmt::format("{}: __metadata__{}: {}", file_, place, fault));
    throw FileError(fmt::format("{}: tensor {}{}: {}", file_, shown(name_), place, fault));
  }
  bool scalar(std::string_view what) const {
    if (in_metadata_) refuse(fmt::format("is {}; __metadata__ is a map from strings to strings", what));
    if (depth_ == 1)
      refuse(fmt::format("is {}; expected an object with dtype, shape and data_offsets", what));
    if (depth_ == 3) refuse(fmt::format("holds {}; expected integers", what));
    refuse(fmt::format("is {}; expected {}", what, field_ == "dtype" ? "a string" : "an array of integers"));
  }
  bool open(std::string_view what) const {
    if (depth_ == 3) refuse(fmt::format("holds {}: nested deeper than three levels", what));
    return scalar(what);
  }
  void finish_tensor() {
    for (char const* const needed : {"dtype", "shape", "data_offsets"}) {
      if (!fields_.contains(needed)) refuse(fmt::format("the field \"{}\" is missing", needed));
    }
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    if (tensor_.end < tensor_.begin) {
      refuse(fmt::format("data_offsets [{}, {}] end before they begin", tensor_.begin, tensor_.end));
    }
    if (std::uint64_t const needed = tensor_bytes(tensor_, file_); needed != tensor_.bytes()) {
      refuse(fmt::format("data_offsets [{}, {}] span {} bytes, but shape {} of {} takes {}", tensor_.begin,
                         tensor_.end, tensor_.bytes(), shown(tensor_.shape), plait::name(tensor_.dtype),
                         needed));
    }
    tensors_.push_back(std::move(tensor_));
  }

  std::string_view file_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_;   // the tensor (or __metadata__) that is being read
  std::string field_;  // the key inside it
  TensorInfo tensor_;
  std::vector<std::uint64_t> offsets_;
  std::unordered_set<std::string> fields_;
  std::unordered_set<std::string> names_;
  std::vector<TensorInfo> tensors_;
  Metadata metadata_;
};

/// Refusals that the JSON parser would word badly or, for a zero byte, not see: it takes one for the end.
void check_text(std::string_view json, std::string_view file) {
  if (!json.starts_with('{')) {
    std::string const found = json.empty() ? "is empty" : "starts with " + shown(json.substr(0, 1));
    throw FileError(fmt::format("{}: the header {}; expected \"{{\"", file, found));
  }
  if (std::size_t const at = first_invalid_utf8(json); at != json.size()) {
    throw FileError(fmt::format("{}: invalid UTF-8 in the header at byte {} (0x{:02x})", file, at,
                                static_cast<unsigned char>(json[at])));
  }
  auto const control = std::ranges::find_if(json, [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r';
  });
  if (control != json.end()) {
    throw FileError(fmt::format("{}: invalid JSON in the header at byte {}: control character 0x{:02x}", file,
                                control - json.begin(), static_cast<unsigned char>(*control)));
  }
}

/// The tensors, in the order of their data, cover [0, data_bytes) once and wholly.
void check_tiling(std::vector<TensorInfo> const& tensors, std::uint64_t data_bytes, std::string_view file) {
  std::uint64_t expected = 0;
  for (TensorInfo const& tensor : tensors) {
    if (tensor.begin != expected) {
      throw FileError(fmt::format(
          "{}: tensor {}: its data begin at byte {}, which leaves {} byte {} ({})", file, shown(tensor.name),
          tensor.begin, tensor.begin > expected ? "a hole from" : "an overlap up to", expected,
          expected == 0 ? "the first tensor begins at 0" : "where the one before ends"));
    }
    expected = tensor.end;
  }
  if (expected != data_bytes) {
    throw FileError(
        fmt::format("{}: the last tensor ends at data byte {}, but the file holds {} bytes of data", file,
                    expected, data_bytes));
  }
}

}  // namespace

std::string_view name(FileDType type) {
  return row(type).name;
}

std::uint64_t size_bits(FileDType type) {
  return row(type).bits;
}

FileDType file_dtype(DType type) {
  return type == DType::f32 ? FileDType::f32 : type == DType::f16 ? FileDType::f16 : FileDType::bf16;
}

std::optional<DType> compute_dtype(FileDType type) {
  for (DType const each : {DType::f32, DType::f16, DType::bf16}) {
    if (file_dtype(each) == type) return each;
  }
  return std::nullopt;
}

std::uint64_t parse_header_length(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                  std::string_view file) {
  if (file_bytes < safetensors_prefix_bytes || prefix.size() < safetensors_prefix_bytes) {
    throw FileError(fmt::format("{}: {} bytes long; a safetensors file has at least 8", file,
                                std::min<std::uint64_t>(file_bytes, prefix.size())));
  }
  std::uint64_t length = 0;
  for (std::size_t i = safetensors_prefix_bytes; i-- > 0;) {
    length = length << 8 | std::to_integer<std::uint64_t>(prefix[i]);
  }
  if (length > max_header_bytes) {
    throw FileError(
        fmt::format("{}: its first 8 bytes give a header of {} bytes; at most {} are accepted (is "
                    "this a safetensors file?)",
                    file, length, max_header_bytes));
  }
  if (length > file_bytes - safetensors_prefix_bytes) {
    throw FileError(fmt::format("{}: a header of {} bytes passes the end of the file ({} bytes): truncated?",
                                file, length, file_bytes));
  }
  return length;
}

SafetensorsHeader parse_header(std::string_view json, std::uint64_t data_bytes, std::string_view file) {
  check_text(json, file);
  HeaderEvents events(file);
  Json::sax_parse(json, &events);
  SafetensorsHeader header = events.take();
  // Empty tensors lie between others: at equal begin they come first.
  std::ranges::stable_sort(header.tensors, [](TensorInfo const& a, TensorInfo const& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_tiling(header.tensors, data_bytes, file);
  return header;
}

NewHeader make_header(std::span<NewTensor const> tensors, Metadata const& metadata, std::string_view file) {
  std::vector<NewTensor> ordered(tensors.begin(), tensors.end());
  std::ranges::stable_sort(ordered, std::ranges::greater(),
                           [](NewTensor const& t) { return size_bits(t.dtype); });

  auto const text = [](std::string_view value) {  // invalid UTF-8 goes through, for the parser to refuse
    return first_invalid_utf8(value) == value.size() ? Json(value).dump() : fmt::format("\"{}\"", value);
  };
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (auto const& [key, value] : metadata) json += fmt::format("{}:{},", text(key), text(value));
    json.back() = '}';
    json += ',';
  }
  std::uint64_t end = 0;
  for (NewTensor const& tensor : ordered) {
    std::uint64_t const begin = end;
    std::uint64_t const bytes = tensor_bytes({tensor.name, tensor.dtype, tensor.shape}, file);
    if (__builtin_add_overflow(begin, bytes, &end)) {
      throw FileError(
          fmt::format("{}: tensor {}: the file would pass 2^64 - 1 bytes", file, shown(tensor.name)));
    }
    json += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)", text(tensor.name),
                        name(tensor.dtype), fmt::join(tensor.shape, ","), begin, end);
  }
  if (json.back() == ',') json.pop_back();
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');

  NewHeader made;
  made.header = parse_header(json, end, file);  // what is written can be read
  for (std::size_t i = 0; i < safetensors_prefix_bytes; ++i) {
    made.bytes += static_cast<char>(json.size() >> (8 * i) & 0xff);
  }
  (void)parse_header_length(std::as_bytes(std::span(made.bytes)), made.bytes.size() + json.size(), file);
  made.bytes += json;
  return made;
}

}  // namespace plait
