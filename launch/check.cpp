#include "check.hpp"

#include <algorithm>
#include <cstring>

namespace plait {
namespace {

/// Multiply-adds that the oracle may take over all ranks: about ten seconds of two cores.
constexpr double affordable_products = 6e9;

/// K or V, one block in memory at a time.
class BlockStream {
 public:
  BlockStream(TensorReader const& file, std::string_view name) : file_(file), tensor_(file.tensor(name)) {}

  TensorView operator()(Slice tokens) {
    std::span const rows(&tokens, 1);
    block_.resize(rows_bytes(tensor_, 1, rows, file_.path().string()));
    file_.read_rows(tensor_, 1, rows, block_);
    return dense(static_cast<void const*>(block_.data()), *compute_dtype(tensor_.dtype), tensor_.shape[0],
                 tokens.size(), tensor_.shape[2], tensor_.shape[3]);
  }

 private:
  TensorReader const& file_;
  TensorInfo const& tensor_;
  std::vector<std::byte> block_;
};

/// The view's local rows in `rows`, dense, in memory of their own.
class PickedRows {
 public:
  PickedRows(TensorView const& from, std::vector<Index> const& rows) {
    std::size_t const row_bytes = static_cast<std::size_t>(from.heads * from.dim) * size_bytes(from.dtype);
    memory_.resize(static_cast<std::size_t>(from.batch) * rows.size() * row_bytes);
    std::byte* target = memory_.data();
    for (Index b = 0; b < from.batch; ++b) {
      for (Index const row : rows) {
        std::memcpy(target, from.at(b, row, 0), row_bytes);
        target += row_bytes;
      }
    }
    view_ = dense(static_cast<void const*>(memory_.data()), from.dtype, from.batch,
                  static_cast<Index>(rows.size()), from.heads, from.dim);
  }
  [[nodiscard]] TensorView view() const { return view_; }

 private:
  std::vector<std::byte> memory_;
  TensorView view_;
};

std::vector<float> picked_lse(std::span<float const> lse, Index lines, Index local_rows,
                              std::vector<Index> const& rows) {
  std::vector<float> picked;
  for (Index line = 0; line < lines; ++line) {
    for (Index const row : rows) picked.push_back(lse[static_cast<std::size_t>(line * local_rows + row)]);
  }
  return picked;
}

void worst_of(Difference& worst, Difference const& other) {
  if (!(other.max_abs_error <= worst.max_abs_error)) worst = other;
}
void worst_of(Tolerance& all, Tolerance const& other) {
  all.plain_error = std::max(all.plain_error, other.plain_error);
  all.unit = std::max(all.unit, other.unit);
}

CheckResult check_mine(Plan const& plan, int rank, TensorReader const& input, CheckedRows const& mine,
                       std::vector<Index> const& sampled) {
  std::vector<Index> positions;
  std::vector<Index> local;
  for (Slice const& slice : plan.layouts.q.slices(rank)) {
    for (Index const position : sampled) {
      if (!slice.contains(position)) continue;
      positions.push_back(position);
      local.push_back(plan.layouts.q.local_row(rank, position));
    }
  }
  if (positions.empty()) return {};
  Shape const& shape = plan.problem.shape;
  PickedRows const q(mine.q, local);
  PickedRows const out(mine.out, local);
  std::vector<float> const lse = picked_lse(mine.lse, shape.batch * shape.q_heads, mine.q.rows, local);
  OracleResult const oracle =
      compute_oracle({.q = q.view(),
                      .q_positions = positions,
                      .kv_tokens = shape.kv_tokens,
                      .kv_heads = shape.kv_heads,
                      .value_dim = shape.value_dim,
                      .keys = BlockStream(input, "k"),
                      .values = BlockStream(input, "v"),
                      .keeps = [&](Index query, Index key) { return plan.problem.mask.keeps(query, key); },
                      .scale = plan.problem.scale});
  return {.rows = static_cast<Index>(positions.size()),
          .out = compare_out(oracle, out.view()),
          .lse = compare_lse(oracle, lse),
          .out_tolerance = out_tolerance(oracle),
          .lse_tolerance = lse_tolerance(oracle)};
}

}  // namespace

std::vector<Index> sample_rows(Index q_tokens, Index rows) {
  rows = std::clamp<Index>(rows, 0, q_tokens);
  std::vector<Index> positions;
  for (Index i = 0; i < rows; ++i) {
    // In floating point: the product of two counts may pass 64 bits. Steps of at least one keep them
    // distinct.
    long double const step =
        rows == 1 ? 0.0L : static_cast<long double>(q_tokens - 1) / static_cast<long double>(rows - 1);
    positions.push_back(static_cast<Index>(static_cast<long double>(i) * step + 0.5L));
  }
  return positions;
}

Index affordable_rows(Shape const& shape, int ranks) {
  double const per_row = static_cast<double>(shape.batch * shape.q_heads) *
                         static_cast<double>(shape.kv_tokens) *
                         static_cast<double>(shape.head_dim + shape.value_dim);
  double const rows = per_row > 0 ? affordable_products / per_row : static_cast<double>(shape.q_tokens);
  return std::clamp<Index>(static_cast<Index>(std::min(rows, static_cast<double>(shape.q_tokens))),
                           std::min<Index>(ranks, shape.q_tokens), shape.q_tokens);
}

CheckResult check(Job const& job, Plan const& plan, TensorReader const& input, CheckedRows const& mine,
                  std::vector<Index> const& rows) {
  CheckResult const here =
      job.together("the check", [&] { return check_mine(plan, job.world().rank(), input, mine, rows); });
  CheckResult all;
  for (CheckResult const& there : job.gather(here, "the verdict of the check")) {
    all.rows += there.rows;
    worst_of(all.out, there.out);
    worst_of(all.lse, there.lse);
    worst_of(all.out_tolerance, there.out_tolerance);
    worst_of(all.lse_tolerance, there.lse_tolerance);
  }
  return all;
}

}  // namespace plait
