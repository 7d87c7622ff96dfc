#include "mask_flags.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "exit_code.hpp"
#include "plait/rounding.hpp"
#include "size.hpp"
#include "tensor_file.hpp"

namespace plait {
namespace {

using Json = nlohmann::json;

std::string read_text(std::string_view flag, std::string const& path) {
  std::ifstream file(path);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw FileError(fmt::format("{} {}: can't be read", flag, path));
  return content;
}

Mask parse_window(std::string const& value, Index q_tokens, Index kv_tokens) {
  std::vector<Index> const sides = parse_sizes("--window", value, -1);
  if (sides.size() != 2) {
    throw UsageError(fmt::format("--window {}: expected LEFT,RIGHT, such as 128,0 (-1 = unbounded)", value));
  }
  return Mask::window(q_tokens, kv_tokens, sides[0], sides[1]);
}

Mask parse_documents(std::string const& value, Index q_tokens, Index kv_tokens) {
  std::string list = value;
  if (value.starts_with('@')) {
    list = read_text("--documents", value.substr(1));
    while (!list.empty() && std::isspace(static_cast<unsigned char>(list.back()))) list.pop_back();
    std::ranges::replace_if(
        list, [](unsigned char c) { return std::isspace(c); }, ',');
  }
  std::vector<Index> const lengths = parse_sizes("--documents", list, 0);
  Index const sum = std::accumulate(lengths.begin(), lengths.end(), Index{0});
  if (q_tokens != kv_tokens) {
    throw UsageError(
        fmt::format("--documents: needs as many queries as keys, there are {} and {}", q_tokens, kv_tokens));
  }
  if (sum != q_tokens) {
    throw UsageError(
        fmt::format("--documents: the lengths sum to {}, expected the {} tokens", sum, q_tokens));
  }
  return Mask::documents(lengths);
}

Mask parse_blocks(CommandLine const& line, Index q_tokens, Index kv_tokens) {
  Index const size = parse_size("--block-size", line.require("block-size"), 1);
  TensorReader const file(line.require("block-mask"));
  TensorInfo const& tensor = file.tensor("mask");
  std::vector<Index> const expected = {divided_up(q_tokens, size), divided_up(kv_tokens, size)};
  bool const is_byte = tensor.dtype == FileDType::u8 || tensor.dtype == FileDType::boolean;
  if (!is_byte || tensor.shape != expected) {
    std::string shape;
    for (Index const extent : tensor.shape) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", extent);
    throw UsageError(fmt::format("--block-mask {}: tensor mask is {} [{}], expected U8 or BOOL [{}, {}]",
                                 file.path().string(), name(tensor.dtype), shape, expected[0], expected[1]));
  }
  std::vector<std::byte> const raw = file.read(tensor);
  std::vector<std::uint8_t> kept(raw.size());
  std::ranges::transform(raw, kept.begin(), [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
  return Mask::blocks(q_tokens, kv_tokens, size, kept);
}

/// The band's field, with the band's number for errors.
class BandReader {
 public:
  BandReader(Json const& band, std::size_t number, std::string_view file)
      : band_(band), number_(number), file_(file) {}

  Band read() const {
    if (!band_.is_object()) refuse("an object", "it");
    for (auto const& [key, value] : band_.items()) {
      if (key != "q" && key != "kv" && key != "lo" && key != "hi") refuse("q, kv, lo or hi", "field " + key);
    }
    return {.q = slice("q"),
            .kv = slice("kv"),
            .lo = diagonal("lo", Band::no_lo),
            .hi = diagonal("hi", Band::no_hi)};
  }

 private:
  [[noreturn]] void refuse(std::string_view expected, std::string const& what) const {
    throw UsageError(fmt::format("--bands {}: band {}: {}: expected {}", file_, number_, what, expected));
  }
  Slice slice(char const* key) const {
    auto const found = band_.find(key);
    bool const fits = found != band_.end() && found->is_array() && found->size() == 2 &&
                      (*found)[0].is_number_integer() && (*found)[1].is_number_integer();
    if (!fits) refuse("[begin, end], two whole numbers", key);
    return {(*found)[0].get<Index>(), (*found)[1].get<Index>()};
  }
  Index diagonal(char const* key, Index absent) const {
    auto const found = band_.find(key);
    if (found == band_.end() || found->is_null()) return absent;
    if (!found->is_number_integer()) refuse("a whole number or null", key);
    return std::clamp(found->get<Index>(), Band::no_lo, Band::no_hi);
  }

  Json const& band_;
  std::size_t number_;
  std::string_view file_;
};

}  // namespace

po::options_description mask_flags() {
  po::options_description flags("Mask: what all given flags keep; with j = k - q - (keys - queries)");
  auto add = flags.add_options();
  add("causal", "keep j <= 0: no query sees later keys");
  add("window", text("LEFT,RIGHT"), "keep -LEFT <= j <= RIGHT; -1 = unbounded on that side");
  add("documents", text("N1,N2,...|@FILE"), "packed sequences of these lengths; each sees only itself");
  add("block-mask", text("FILE"), "safetensors file with a U8 or BOOL tensor `mask`, one element per block");
  add("block-size", text("B"), "tokens of a side of a block of --block-mask");
  add("bands", text("FILE.json"), R"([{"q":[begin,end],"kv":[begin,end],"lo":int|null,"hi":int|null},...]
keeps lo <= k - q <= hi inside each rectangle; bands must not overlap)");
  return flags;
}

std::vector<Band> parse_bands(std::string_view json, std::string_view file) {
  Json parsed;
  try {
    parsed = Json::parse(json);
  } catch (Json::parse_error const& error) {
    throw UsageError(fmt::format("--bands {}: not JSON: {}", file, error.what()));
  }
  if (!parsed.is_array()) throw UsageError(fmt::format("--bands {}: expected a list of bands", file));
  std::vector<Band> bands;
  for (Json const& band : parsed) bands.push_back(BandReader(band, bands.size(), file).read());
  return bands;
}

Mask parse_mask(CommandLine const& line, Index q_tokens, Index kv_tokens) {
  Mask mask = Mask::full(q_tokens, kv_tokens);
  if (line.has("causal")) mask = mask.intersect(Mask::causal(q_tokens, kv_tokens));
  if (auto const value = line.get("window")) mask = mask.intersect(parse_window(*value, q_tokens, kv_tokens));
  if (auto const value = line.get("documents")) {
    mask = mask.intersect(parse_documents(*value, q_tokens, kv_tokens));
  }
  if (line.has("block-size") && !line.has("block-mask")) {
    throw UsageError("--block-size: needs --block-mask FILE beside it");
  }
  if (line.has("block-mask")) mask = mask.intersect(parse_blocks(line, q_tokens, kv_tokens));
  if (auto const path = line.get("bands")) {
    mask = mask.intersect(
        Mask::from_bands(q_tokens, kv_tokens, parse_bands(read_text("--bands", *path), *path)));
  }
  return mask;
}

}  // namespace plait
