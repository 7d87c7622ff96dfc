// The result against the oracle: every rank checks sampled rows that it owns; the verdict is of all.
#pragma once

#include <span>
#include <vector>

#include "job.hpp"
#include "oracle.hpp"
#include "plait/plan.hpp"
#include "tensor_file.hpp"

namespace plait {

/// Rows to check: `rows` of q_tokens, evenly spread, first and last among them; all if there are no more.
[[nodiscard]] std::vector<Index> sample_rows(Index q_tokens, Index rows);
/// As many rows as the oracle computes in acceptable time, over all ranks; at least one per rank.
[[nodiscard]] Index affordable_rows(Shape const& shape, int ranks);

/// What this rank ran on and what came out, in the order of its layout's slices.
struct CheckedRows {
  TensorView q;
  TensorView out;
  std::span<float const> lse;  ///< dense [batch, q_heads, local queries]
};

/// The worst of all ranks. out's tolerance is twice the error of a plain implementation of the same element
/// type, plus two rounding units; lse's likewise.
struct CheckResult {
  Index rows = 0;
  Difference out;
  Difference lse;
  Tolerance out_tolerance;
  Tolerance lse_tolerance;
  [[nodiscard]] bool passed() const {
    return out.max_abs_error <= out_tolerance.value() && lse.max_abs_error <= lse_tolerance.value();
  }
};

/// Streams K and V from `input`, block by block. Collective.
[[nodiscard]] CheckResult check(Job const& job, Plan const& plan, TensorReader const& input,
                                CheckedRows const& mine, std::vector<Index> const& rows);

}  // namespace plait
