#include "calibration_plans.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "size.hpp"
#include "study_measure.hpp"
#include "study_row.hpp"

namespace plait {
namespace {

struct PlanCase {
  std::string strategy;
  Index tokens_per_rank;
  Index kv_heads;  ///< of 8 query heads
};

std::vector<PlanCase> plan_cases(int ranks) {
  std::vector<PlanCase> cases = {
      {"ring", 768, 1}, {"ring", 384, 4}, {"passq", 384, 4}, {"tree:direct", 384, 4}, {"mesh", 384, 4}};
  if (ranks > 4) return cases;  // as many as there are heads
  cases.push_back({"ulysses", 384, 4});
  cases.push_back({fmt::format("ulysses:{}:1", ranks), 384, 4});  // its exchanges hide behind no fold
  return cases;
}

double sum(std::vector<double> const& seconds) {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

}  // namespace

bool of_one_speed(BothEnds const& ends) {
  auto const [faster, slower] = std::minmax({sum(ends.first), sum(ends.last)});
  return slower <= same_speed * faster;
}

std::vector<double> undisturbed(BothEnds const& ends) {
  if (!of_one_speed(ends)) return sum(ends.first) < sum(ends.last) ? ends.first : ends.last;
  std::vector<double> means;
  for (std::size_t i = 0; i < ends.first.size(); ++i) means.push_back((ends.first[i] + ends.last[i]) / 2);
  return means;
}

std::string describe(BothEnds const& ends) {
  return fmt::format("whole attentions took {} at its start, {} at its end", format_seconds(sum(ends.first)),
                     format_seconds(sum(ends.last)));
}

PlanBench::PlanBench(Job const& job, DeviceChoice const& device, RunOptions const& options,
                     ElementShape const& elements)
    : job_(job), device_(device), options_(options) {
  constexpr int most_ranks = 64;
  int const ranks = job.world().size();
  if (device.kind == DeviceKind::cuda || ranks == 1 || ranks > most_ranks) return;
  for (auto const& [strategy, tokens_per_rank, kv_heads] : plan_cases(ranks)) {
    Index const tokens = tokens_per_rank * ranks;
    Shape const shape = shape_of(tokens, tokens, 8, kv_heads, elements);
    Problem const problem{.shape = shape, .mask = Mask::full(tokens, tokens), .scale = default_scale(shape)};
    plans_.push_back(make_plan(problem, make_layouts("contiguous", problem.mask, ranks), strategy));
  }
}

std::vector<double> PlanBench::times(int passes, int runs) const {
  if (plans_.empty()) return {};
  RunOptions options = options_;
  options.repeat = runs;
  FirstRanks const all(job_, job_.world().size());
  std::vector<std::vector<double>> seconds(plans_.size());
  for (int pass = 0; pass < passes; ++pass) {
    for (std::size_t i = 0; i < plans_.size(); ++i) {
      std::ranges::copy(measure_point(job_, all, plans_[i], device_, options, Record::nothing).seconds,
                        std::back_inserter(seconds[i]));
    }
  }
  std::vector<double> medians;
  for (std::vector<double> const& times : seconds) medians.push_back(median(times));
  return medians;
}

std::string describe(Plan const& plan) {
  Shape const& shape = plan.problem.shape;
  return fmt::format("attention by {}, {} tokens, {}:{} heads", plan.strategy, shape.q_tokens, shape.q_heads,
                     shape.kv_heads);
}

}  // namespace plait
