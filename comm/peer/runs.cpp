#include "runs.hpp"

#include <algorithm>
#include <stdexcept>

#include "../pieces.hpp"

namespace plait {
namespace {

/// A place in the stream of some runs.
class Cursor {
 public:
  explicit Cursor(std::span<RowRun const> runs) : runs_(runs) {}

  [[nodiscard]] bool at_end() const { return runs_.empty(); }
  [[nodiscard]] std::byte* data() const { return runs_.front().data + row_ * runs_.front().pitch + column_; }
  /// Bytes of this row from here on.
  [[nodiscard]] std::size_t left_in_row() const { return runs_.front().width - column_; }
  /// How many rows of `width` bytes follow, one distance apart; at least one if left_in_row() ≥ width.
  [[nodiscard]] std::size_t rows_of(std::size_t width) const {
    return has_rows_of(width) ? runs_.front().rows - row_ : left_in_row() / width;
  }
  [[nodiscard]] std::size_t pitch_of(std::size_t width) const {
    return has_rows_of(width) ? runs_.front().pitch : width;
  }
  /// Goes on by `rows` rows of `width` bytes, as rows_of has them.
  void skip(std::size_t width, std::size_t rows) {
    if (has_rows_of(width)) {
      row_ += rows;
    } else {
      column_ += width * rows;
      if (column_ < runs_.front().width) return;
      column_ = 0;
      ++row_;
    }
    if (row_ < runs_.front().rows) return;
    row_ = 0;
    runs_ = runs_.subspan(1);
  }

 private:
  [[nodiscard]] bool has_rows_of(std::size_t width) const {
    return column_ == 0 && runs_.front().width == width;
  }

  std::span<RowRun const> runs_;
  std::size_t row_ = 0;
  std::size_t column_ = 0;
};

std::size_t total_bytes(std::span<RowRun const> runs) {
  std::size_t sum = 0;
  for (RowRun const& run : runs) sum += run.width * run.rows;
  return sum;
}

}  // namespace

std::vector<RowRun> runs_of(std::vector<Region> const& pieces) {
  std::vector<RowRun> runs;
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t const rows = run_length(pieces, first);
    RowRun run{
        .data = pieces[first].data, .width = pieces[first].bytes, .pitch = pieces[first].bytes, .rows = rows};
    if (rows > 1) run.pitch = static_cast<std::size_t>(pieces[first + 1].data - pieces[first].data);
    if (run.pitch == run.width) {  // rows without gaps are one piece
      run.width = run.pitch *= run.rows;
      run.rows = 1;
    }
    if (run.width > 0) runs.push_back(run);
    first += rows;
  }
  return runs;
}

std::vector<RowCopy> copies_between(std::span<RowRun const> from, std::span<RowRun const> into) {
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
