#include "size.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "exit_code.hpp"

namespace plait {
namespace {

std::optional<Index> whole_number(std::string_view text) {
  Index scale = 1;
  if (!text.empty()) {
    switch (text.back()) {
      case 'K':
      case 'k':
        scale = Index{1} << 10;
        break;
      case 'M':
      case 'm':
        scale = Index{1} << 20;
        break;
      case 'G':
      case 'g':
        scale = Index{1} << 30;
        break;
      default:
        break;
    }
  }
  if (scale != 1) text.remove_suffix(1);
  Index value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  Index product = 0;
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (__builtin_mul_overflow(value, scale, &product)) return std::nullopt;
  return product;
}

}  // namespace

Index parse_size(std::string_view flag, std::string_view text, Index least, Index most) {
  std::optional<Index> const value = whole_number(text);
  if (value && least <= *value && *value <= most) return *value;
  std::string const range = most == std::numeric_limits<Index>::max()
                                ? fmt::format("of at least {}", least)
                                : fmt::format("from {} to {}", least, most);
  throw UsageError(fmt::format("{} {}: expected a whole number {} (K, M and G stand for 2^10, 2^20 and 2^30)",
                               flag, text, range));
}

std::vector<Index> parse_sizes(std::string_view flag, std::string_view text, Index least) {
  std::vector<Index> sizes;
  while (!text.empty()) {
    std::size_t const comma = text.find(',');
    sizes.push_back(parse_size(flag, text.substr(0, comma), least));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) throw UsageError(fmt::format("{}: the list ends with a comma", flag));
  }
  return sizes;
}

double parse_real(std::string_view flag, std::string_view text, double above) {
  double value = 0.0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value) && value > above) {
    return value;
  }
  throw UsageError(std::isfinite(above)
                       ? fmt::format("{} {}: expected a number greater than {}", flag, text, above)
                       : fmt::format("{} {}: expected a finite number, such as 0.125", flag, text));
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array units = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return fmt::format("{:.2f} {}", value, units[unit]);
}

std::string format_seconds(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.1f} µs", seconds * 1e6);
  if (seconds < 1.0) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.3f} s", seconds);
}

}  // namespace plait
