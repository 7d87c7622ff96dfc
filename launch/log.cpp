#include "log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

namespace plait {
namespace {

std::optional<int> first_number(std::span<char const* const> names) {
  for (char const* name : names) {
    char const* const value = std::getenv(name);
    if (value == nullptr) continue;
    std::string_view const digits = value;
    int number = 0;
    auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error == std::errc() && end == digits.data() + digits.size() && number >= 0) return number;
  }
  return std::nullopt;
}

void write_line(std::string const& line) {
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::optional<int> launched_rank() {
  constexpr std::array names = {"OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK",
                                "SLURM_PROCID"};
  return first_number(names);
}

void log_line(int rank, std::string_view host, std::string_view message) {
  write_line(fmt::format("[rank {} host {}] {}\n", rank, host, message));
}

void log_line(std::string_view message) {
  auto const rank = launched_rank();
  if (!rank) return write_line(fmt::format("plait: {}\n", message));
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  log_line(*rank, host.data(), message);
}

}  // namespace plait
