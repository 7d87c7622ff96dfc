#include "row_copies.hpp"

#include <algorithm>
#include <stdexcept>

namespace plait {
namespace {

/// A place in the stream of some rows.
class Cursor {
 public:
  explicit Cursor(std::span<StridedRegion const> stream) : rest_(stream) { skip_empty(); }

  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  [[nodiscard]] std::byte* data() const { return rest_.front().row(row_) + column_; }
  /// Bytes of this row from here on.
  [[nodiscard]] std::size_t left_in_row() const { return rest_.front().width - column_; }
  /// How many rows of `width` bytes follow, one distance apart; at least one if left_in_row() ≥ width.
  [[nodiscard]] std::size_t rows_of(std::size_t width) const {
    return has_rows_of(width) ? rest_.front().rows - row_ : left_in_row() / width;
  }
  [[nodiscard]] std::size_t pitch_of(std::size_t width) const {
    return has_rows_of(width) ? rest_.front().pitch : width;
  }
  /// Goes on by `rows` rows of `width` bytes, as rows_of has them.
  void skip(std::size_t width, std::size_t rows) {
    if (has_rows_of(width)) {
      row_ += rows;
    } else {
      column_ += width * rows;
      if (column_ < rest_.front().width) return;
      column_ = 0;
      ++row_;
    }
    if (row_ < rest_.front().rows) return;
    row_ = 0;
    rest_ = rest_.subspan(1);
    skip_empty();
  }

 private:
  [[nodiscard]] bool has_rows_of(std::size_t width) const {
    return column_ == 0 && rest_.front().width == width;
  }

  void skip_empty() {
    while (!rest_.empty() && rest_.front().bytes() == 0) rest_ = rest_.subspan(1);
  }

  std::span<StridedRegion const> rest_;  ///< from the rows at hand on
  std::size_t row_ = 0;
  std::size_t column_ = 0;
};

std::size_t total_bytes(std::span<StridedRegion const> stream) {
  std::size_t sum = 0;
  for (StridedRegion const& piece : stream) sum += piece.bytes();
  return sum;
}

}  // namespace

std::vector<RowCopy> copies_between(std::span<StridedRegion const> from,
                                    std::span<StridedRegion const> into) {
  if (total_bytes(from) != total_bytes(into)) {
    throw std::logic_error("a copy between layouts of different lengths");
  }
  std::vector<RowCopy> copies;
  Cursor source(from);
  Cursor target(into);
  while (!source.at_end()) {
    std::size_t const width = std::min(source.left_in_row(), target.left_in_row());
    std::size_t const rows = std::min(source.rows_of(width), target.rows_of(width));
    copies.push_back({.from = source.data(),
                      .from_pitch = source.pitch_of(width),
                      .into = target.data(),
                      .into_pitch = target.pitch_of(width),
                      .width = width,
                      .rows = rows});
    source.skip(width, rows);
    target.skip(width, rows);
  }
  return copies;
}

}  // namespace plait
