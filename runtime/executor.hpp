// Runs one rank's program: start a round's transfers, fold and merge meanwhile, finish them; at the end,
// write out. On a GPU all of it is queued: the host waits for transfers, never for folds.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <tuple>

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
  /// What reductions are packed in.
  [[nodiscard]] std::uint64_t reduction_bytes() const { return sizeof(float) * meeting_->size(); }
  /// The kernels that its folds use, each once.
  [[nodiscard]] std::vector<std::string> kernels() const;

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] Program const& program() const { return plan_.programs[static_cast<std::size_t>(rank_)]; }
  [[nodiscard]] Exchange exchange(std::size_t index) const;
  /// The largest reductions of any round: all parts of this rank, then its own result.
  [[nodiscard]] std::size_t largest_meeting() const;
  void reduce(std::size_t index);
  /// Which folds finish their rows too: those that are the last to touch the state that a finish reads.
  void find_finishing_folds();
  void prepare(Fold const& step, bool finishes);
  void fold(std::size_t index, bool beside_transfers);
  void merge(Merge const& step);
  void finish(Finish const& step);
  /// Runs, or queues, `work` as an event of `kind` between two marks of the device. Without a timeline,
  /// folds, merges and finishes that follow one another are one event: a mark between two folds would keep a
  /// GPU from beginning the second while the first one ends.
  template <class Work>
  void timed(Event::Kind kind, std::size_t round, BlockId block, Work&& work);
  void end_step();
  void report_times();
  void report_flights();
  double since_start(Clock::time_point when) const {
    return std::chrono::duration<double>(when - start_).count();
  }

  Plan const& plan_;
  int rank_;
  Device& device_;
  Transport& transport_;
  AttentionOptions const& options_;
  PlanMemory memory_;
  std::shared_ptr<std::vector<float>> meeting_;  ///< rows of a reduction: this rank's parts, then its result
  /// By query block, key block, start, and whether the fold finishes.
  std::map<std::tuple<BlockId, BlockId, Start, bool>, std::unique_ptr<FoldPlan>> fold_plans_;
  std::map<std::size_t, Finish> finishing_folds_;  ///< index among the folds → what they do besides
  std::set<std::size_t> finished_by_folds_;        ///< indices among the finishes
  Clock::time_point start_;
  Timeline steps_;             ///< of the run so far; their times are numbers of marks until the end
  bool step_is_open_ = false;  ///< the last one has no end yet
  RunReport report_;
};

}  // namespace plait
