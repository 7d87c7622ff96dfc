// Proves a plan right before it runs: all ranks' programs are executed symbolically, round by round.
#pragma once

#include <string>
#include <vector>

#include "plait/plan.hpp"

namespace plait {

/// The five laws that a plan can break.
enum class Law : std::uint8_t {
  coverage,    ///< each (head, q, k) that the mask keeps is folded exactly once; no state is dropped or used
               ///< twice
  residency,   ///< steps read only what is at home or arrived before, and nothing that is read is overwritten
  matching,    ///< every send has one receive, in the same round and order, of the same block
  homecoming,  ///< every query row's state ends once, on the rank that owns the row
  memory,      ///< every slot is as large as the largest block that it holds
};
[[nodiscard]] std::string_view name(Law law);

struct Violation {
  Law law;
  std::string message;  ///< names rank, round and block
};

/// The violations found, at most `most`; empty = the plan is right. Work grows with the number of steps plus,
/// per query block, the key blocks folded into it.
[[nodiscard]] std::vector<Violation> verify(Plan const& plan, std::size_t most = 16);

/// A plan that is not right.
class InvalidPlan : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// @throws InvalidPlan with the violations as its message
void require_verified(Plan const& plan);

}  // namespace plait
