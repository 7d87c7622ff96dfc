// Runs one rank's program: start a round's transfers, fold and merge meanwhile, finish them; at the end,
// write out.
#pragma once

#include <map>
#include <memory>

#include "plait/attention.hpp"
#include "plait/transport.hpp"
#include "plan_memory.hpp"

namespace plait {

class Executor {
 public:
  /// Prepares every fold and allocates every slot: nothing is allocated on the device while a plan runs.
  /// `plan`, `device` and `transport` outlive it.
  Executor(Plan const& plan, int rank, Device& device, Transport& transport, AttentionOptions const& options);

  /// One run; times count from `start`. @returns the report without `sent` and `received`
  RunReport run(LocalTensors const& tensors, std::chrono::steady_clock::time_point start);

  [[nodiscard]] std::uint64_t slots_bytes() const { return memory_.slots_bytes(); }
  [[nodiscard]] std::uint64_t fold_plan_bytes() const;

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] Program const& program() const { return plan_.programs[static_cast<std::size_t>(rank_)]; }
  [[nodiscard]] Exchange exchange(std::size_t index) const;
  void fold(Fold const& step);
  void merge(Merge const& step);
  void finish(Finish const& step);
  /// Runs `work` as one event of `kind`; returns its seconds.
  template <class Work>
  double timed(Event::Kind kind, std::size_t round, BlockId block, Work&& work);
  void record_flights(std::size_t round, std::vector<Flight> const& flights);
  double since_start(Clock::time_point when) const {
    return std::chrono::duration<double>(when - start_).count();
  }

  Plan const& plan_;
  int rank_;
  Device& device_;
  Transport& transport_;
  AttentionOptions const& options_;
  PlanMemory memory_;
  std::map<std::pair<BlockId, BlockId>, std::unique_ptr<FoldPlan>> fold_plans_;  ///< by (q, kv)
  Clock::time_point start_;
  RunReport report_;
};

}  // namespace plait
