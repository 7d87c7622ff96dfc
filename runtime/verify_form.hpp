// What the verifier collects, and its first look at a plan: whether the rest of it can follow the indices.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "plait/verify.hpp"

namespace plait {

/// The first so many violations.
class Faults {
 public:
  explicit Faults(std::size_t most) : most_(most) {}
  [[nodiscard]] bool enough() const { return found_.size() >= most_; }
  [[nodiscard]] bool none() const { return found_.empty(); }
  [[nodiscard]] std::vector<Violation> take() { return std::move(found_); }

  /// @param message  a format string for `values`
  template <class... Values>
  void add(Law law, int rank, std::size_t round, std::string_view message, Values const&... values) {
    if (enough()) return;
    found_.push_back({law, fmt::format("rank {}, round {}: {}", rank, round,
                                       fmt::vformat(message, fmt::make_format_args(values...)))});
  }

 private:
  std::size_t most_;
  std::vector<Violation> found_;
};

/// Whether every block and slot that a step names exists and is of its kind, peers are other ranks, and all
/// programs have as many rounds, into which they are cut completely.
[[nodiscard]] bool well_formed(Plan const& plan, Faults& faults);

}  // namespace plait
