// One timed case on one device: a fold in one or several hops, a merge or a finish.
#pragma once

#include <string>
#include <vector>

#include "plait/device.hpp"
#include "plait/mask.hpp"

namespace plait::bench {

struct DeviceCase {
  std::string op = "fold";    ///< fold, merge or finish
  std::string mask = "full";  ///< full, causal, documents (64, causal) or blocks (of 128 tokens, 10% kept)
  DType dtype = DType::bf16;
  Index batch = 1;
  Index tokens = 2048;
  Index heads = 16;
  Index kv_heads = 16;
  Index dim = 128;
  Index value_dim = 128;
  Index hops = 1;                 ///< folds of tokens / hops keys that carry the state; the last one finishes
  std::string strategy = {};      ///< if given: the folds of all ranks of this plan, one after the other
  std::string layout = "zigzag";  ///< of that plan
  int ranks = 1;                  ///< of that plan
  bool beside_transfers = false;  ///< folds are told so, and leave room: what that costs
  int repeat = 10;
  int checked_rows = 8;  ///< rows held against the oracle; 0 = none
};

struct CaseResult {
  std::string kernel;
  std::vector<double> seconds;  ///< of each repeat, after a warm-up
  double flops = 0.0;           ///< of the kept pairs: 2 · area · heads · (D + Dv); 0 for merge and finish
  double bytes = 0.0;           ///< compulsory: inputs read once, outputs written once
  std::size_t extra_bytes = 0;  ///< device memory beyond inputs and outputs: states and tile lists
  int checked_rows = 0;
  int wrong_rows = 0;
};

/// @throws Unsupported, InvalidProblem, or std::invalid_argument on a word or a size that cannot be
[[nodiscard]] CaseResult run_case(Device& device, DeviceCase const& given);

/// Answers a case per line of stdin (a JSON object whose keys are DeviceCase's) with a JSON line on stdout; a
/// case that fails is answered {"error": …}. @returns 0 if no case failed and no row was wrong, else 1
int serve(Device& device);

}  // namespace plait::bench
