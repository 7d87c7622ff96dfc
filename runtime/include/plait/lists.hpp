// Lists one after the other in two arrays: thousands of ranks, with a few things each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace plait {

/// The values in ascending order, each once.
template <class Value>
[[nodiscard]] std::vector<Value> ascending(std::vector<Value> values) {
  std::ranges::sort(values);
  auto const same = std::ranges::unique(values);
  values.erase(same.begin(), same.end());
  return values;
}

/// Filled in order: values are added to the last list until it ends.
template <class Value>
class Lists {
 public:
  void add(Value const& value) { values_.push_back(value); }
  template <class Values>
  void add_all(Values const& values) {
    values_.insert(values_.end(), values.begin(), values.end());
  }
  void end_list() { ends_.push_back(values_.size()); }
  /// Room for so many values: until there are more, lists stay where they are.
  void reserve(std::size_t values) { values_.reserve(values); }
  /// Lists that have ended.
  [[nodiscard]] std::size_t size() const { return ends_.size(); }

  [[nodiscard]] std::span<Value const> operator[](std::size_t list) const {
    std::size_t const begin = list == 0 ? 0 : ends_[list - 1];
    return std::span(values_).subspan(begin, ends_[list] - begin);
  }

 private:
  std::vector<Value> values_;
  std::vector<std::size_t> ends_;  ///< of each list
};

}  // namespace plait
