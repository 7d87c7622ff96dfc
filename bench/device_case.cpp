#include "device_case.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "oracle.hpp"
#include "plait/layout.hpp"
#include "plait/strategy.hpp"

namespace plait::bench {
namespace {

/// N(0, 1) elements, fast: chunks of one table, each from a random offset.
class RandomTensor {
 public:
  explicit RandomTensor(DType dtype) : dtype_(dtype), table_(table_size * size_bytes(dtype)) {
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < table_size; ++i) {
      store(dtype, table_.data(), static_cast<std::ptrdiff_t>(i), normal(random_));
    }
  }
  std::vector<std::byte> operator()(Index count) {
    std::uniform_int_distribution<std::size_t> offset(0, table_size - chunk);
    std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size_bytes(dtype_));
    for (std::size_t at = 0; at < bytes.size(); at += chunk * size_bytes(dtype_)) {
      std::memcpy(bytes.data() + at, table_.data() + offset(random_) * size_bytes(dtype_),
                  std::min(chunk * size_bytes(dtype_), bytes.size() - at));
    }
    return bytes;
  }

 private:
  static constexpr std::size_t table_size = (1u << 20) + 4099;
  static constexpr std::size_t chunk = 4096 + 37;  // no multiple of a row: rows do not repeat in step
  DType dtype_;
  std::vector<std::byte> table_;
  std::mt19937 random_{1};
};

std::vector<Index> document_lengths(Index tokens, Index count) {
  std::mt19937 random(7);
  std::uniform_int_distribution<Index> cut(0, tokens);
  std::vector<Index> cuts{0, tokens};
  while (static_cast<Index>(cuts.size()) < count + 1) cuts.push_back(cut(random));
  std::ranges::sort(cuts);
  std::vector<Index> lengths;
  for (std::size_t i = 1; i < cuts.size(); ++i) lengths.push_back(cuts[i] - cuts[i - 1]);
  return lengths;
}

Mask make_mask(std::string const& name, Index tokens) {
  if (name == "full") return Mask::full(tokens, tokens);
  if (name == "causal") return Mask::causal(tokens, tokens);
  if (name == "documents") {
    return Mask::documents(document_lengths(tokens, 64)).intersect(Mask::causal(tokens, tokens));
  }
  if (name == "blocks") {
    std::mt19937 random(7);
    std::bernoulli_distribution keeps(0.1);
    Index const side = (tokens + 127) / 128;
    std::vector<std::uint8_t> kept(static_cast<std::size_t>(side * side));
    for (std::uint8_t& block : kept) block = keeps(random) ? 1 : 0;
    return Mask::blocks(tokens, tokens, 128, kept);
  }
  throw std::invalid_argument(fmt::format("mask {}: must be full, causal, documents or blocks", name));
}

void check(DeviceCase const& given) {
  bool const sane = given.batch > 0 && given.tokens > 0 && given.kv_heads > 0 && given.heads > 0 &&
                    given.heads % given.kv_heads == 0 && given.dim > 0 && given.value_dim > 0 &&
                    given.hops > 0 && given.hops <= given.tokens && given.ranks > 0 && given.repeat > 0;
  if (!sane) throw std::invalid_argument("sizes must be positive, and heads a multiple of kv_heads");
}

/// `work` until the device is as warm, and its clock as low, as in a long run; then timed between marks.
template <class Work>
std::vector<double> time_repeats(Device& device, int repeat, Work&& work) {
  constexpr std::chrono::milliseconds warm_up{200};
  auto const begin = std::chrono::steady_clock::now();
  do {
    work();
    device.synchronize();
  } while (std::chrono::steady_clock::now() - begin < warm_up);
  for (int i = 0; i < repeat; ++i) {
    (void)device.mark();
    work();
    (void)device.mark();
  }
  auto const marks = device.take_marks();
  std::vector<double> seconds;
  for (std::size_t i = 0; i + 1 < marks.size(); i += 2) {
    seconds.push_back(std::chrono::duration<double>(marks[i + 1] - marks[i]).count());
  }
  return seconds;
}

/// A tensor on the host and on the device.
struct Operand {
  std::vector<std::byte> host;
  std::unique_ptr<DeviceMemory> memory;
};

/// One fold of a case. What states are called: a rank, and a slot of its.
struct Step {
  Slice q;
  Slice kv;
  std::pair<int, SlotId> state;
  Start start = Start::identity;
  bool finishes = false;
};

/// One state that takes in `hops` slices of the keys.
std::vector<Step> hops_of(DeviceCase const& given) {
  std::vector<Step> steps;
  for (Index hop = 0; hop < given.hops; ++hop) {
    steps.push_back({.q = {0, given.tokens},
                     .kv = {given.tokens * hop / given.hops, given.tokens * (hop + 1) / given.hops},
                     .state = {0, 0},
                     .start = hop == 0 ? Start::identity : Start::carried,
                     .finishes = hop + 1 == given.hops});
  }
  return steps;
}

/// The folds of all ranks of a plan whose rows are finished where they are folded, as the executor fuses
/// them.
std::vector<Step> steps_of(DeviceCase const& given, Mask const& mask) {
  if (given.strategy.empty()) return hops_of(given);
  Problem const problem{.shape = {.batch = given.batch,
                                  .q_tokens = given.tokens,
                                  .kv_tokens = given.tokens,
                                  .q_heads = given.heads,
                                  .kv_heads = given.kv_heads,
                                  .head_dim = given.dim,
                                  .value_dim = given.value_dim,
                                  .dtype = given.dtype},
                        .mask = mask};
  Plan const plan = make_plan(problem, make_layouts(given.layout, mask, given.ranks), given.strategy);
  std::vector<Step> steps;
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    Program const& program = plan.programs[static_cast<std::size_t>(rank)];
    if (!program.merges.empty() || !program.reductions.empty()) {
      throw std::invalid_argument(given.strategy + ": states meet elsewhere than in a fold");
    }
    std::map<SlotId, std::size_t> last;
    for (Fold const& fold : program.folds) {
      if (plan.block(fold.q).heads.size() != given.kv_heads) {
        throw std::invalid_argument(given.strategy + ": folds some of the heads at a time");
      }
      last[fold.state] = steps.size();
      steps.push_back({.q = plan.block(fold.q).slice,
                       .kv = plan.block(fold.kv).slice,
                       .state = {rank, fold.state},
                       .start = fold.start});
    }
    for (auto const& [slot, step] : last) steps[step].finishes = true;
  }
  return steps;
}

class FoldCase {
 public:
  FoldCase(Device& device, DeviceCase const& given)
      : device_(device), given_(given), mask_(make_mask(given.mask, given.tokens)) {
    RandomTensor random(given.dtype);
    Index const rows = given.batch * given.tokens;
    for (auto [operand, width] :
         {std::pair{&q_, given.heads * given.dim}, std::pair{&k_, given.kv_heads * given.dim},
          std::pair{&v_, given.kv_heads * given.value_dim}}) {
      operand->host = random(rows * width);
      operand->memory = device.allocate(operand->host.size());
      device.upload(operand->host, operand->memory->data());
    }
    std::size_t const out_bytes =
        static_cast<std::size_t>(rows * given.heads * given.value_dim) * size_bytes(given.dtype);
    out_ = device.allocate(out_bytes);
    lse_ = device.allocate(static_cast<std::size_t>(rows * given.heads) * sizeof(float));
    for (Step const& step : steps_of(given, mask_)) prepare(step);
  }

  CaseResult run() {
    CaseResult result;
    result.kernel = folds_.back().plan->kernel();
    result.seconds = time_repeats(device_, given_.repeat, [this] { fold(); });
    double const pairs = static_cast<double>(mask_.area()) * static_cast<double>(given_.batch * given_.heads);
    result.flops = 2.0 * pairs * static_cast<double>(given_.dim + given_.value_dim);
    result.bytes =
        static_cast<double>(q_.host.size() + k_.host.size() + v_.host.size() + out_->bytes() + lse_->bytes());
    for (auto const& [step, plan] : folds_) result.extra_bytes += plan->bytes();
    for (auto const& [slot, state] : states_) result.extra_bytes += state->bytes();
    result.checked_rows = static_cast<int>(std::min<Index>(given_.checked_rows, given_.tokens));
    if (result.checked_rows > 0) result.wrong_rows = wrong_rows(result.checked_rows);
    return result;
  }

 private:
  struct Prepared {
    Step step;
    std::unique_ptr<FoldPlan> plan;
  };

  void prepare(Step const& step) {
    folds_.push_back({step, device_.prepare({.q = step.q,
                                             .kv = step.kv,
                                             .bands = mask_.restricted(step.q, step.kv),
                                             .dtype = given_.dtype,
                                             .head_dim = given_.dim,
                                             .value_dim = given_.value_dim,
                                             .lanes = given_.batch * given_.heads,
                                             .group = given_.heads / given_.kv_heads,
                                             .start = step.start,
                                             .finishes = step.finishes})});
    auto& state = states_[step.state];
    if (!state) {
      state = device_.allocate(state_bytes(given_.batch, given_.heads, step.q.size(), given_.value_dim));
    }
  }

  void fold() {
    for (auto const& [step, plan] : folds_) {
      FoldOperands operands{.q = view(q_.memory->data(), given_.heads, given_.dim).rows_of(step.q),
                            .k = view(k_.memory->data(), given_.kv_heads, given_.dim).rows_of(step.kv),
                            .v = view(v_.memory->data(), given_.kv_heads, given_.value_dim).rows_of(step.kv),
                            .state = state_view(states_.at(step.state)->data(), given_.batch, given_.heads,
                                                step.q.size(), given_.value_dim),
                            .scale = scale(),
                            .beside_transfers = given_.beside_transfers};
      if (step.finishes) {
        operands.output = Output{.out = dense<void>(out_->data(), given_.dtype, given_.batch, given_.tokens,
                                                    given_.heads, given_.value_dim)
                                            .rows_of(step.q),
                                 .lse = reinterpret_cast<float*>(lse_->data()) + step.q.begin,
                                 .lse_batch_stride = given_.tokens * given_.heads,
                                 .lse_head_stride = given_.tokens};
      }
      device_.fold(*plan, operands);
    }
  }

  /// Rows spread over the last sequence, in the query heads of the last key/value head.
  int wrong_rows(int count) {
    std::vector<std::byte> out(out_->bytes());
    device_.download(out_->data(), out);
    Index const group = given_.heads / given_.kv_heads;
    auto last = [&](TensorView all, Index heads) {
      all.data = all.at(all.batch - 1, 0, 0);
      all.batch = 1;
      return all.heads_of(all.heads - heads, all.heads);
    };
    // The last rows of each stretch, so that the causal mask's longest row is among them.
    auto every = [&](TensorView all) {
      Index const step = given_.tokens / count;
      all = all.rows_of({given_.tokens - 1 - step * (count - 1), given_.tokens});
      all.rows = count;
      all.row_stride *= step;
      return all;
    };
    TensorView const k = last(view(k_.host.data(), given_.kv_heads, given_.dim), 1);
    TensorView const v = last(view(v_.host.data(), given_.kv_heads, given_.value_dim), 1);
    OracleInput input{.q = every(last(view(q_.host.data(), given_.heads, given_.dim), group)),
                      .kv_tokens = given_.tokens,
                      .kv_heads = 1,
                      .value_dim = given_.value_dim,
                      .keys = [&](Slice slice) { return k.rows_of(slice); },
                      .values = [&](Slice slice) { return v.rows_of(slice); },
                      .keeps = [&](Index at, Index key) { return mask_.keeps(at, key); },
                      .scale = static_cast<double>(scale())};
    Index const step = given_.tokens / count;
    for (int i = 0; i < count; ++i) {
      input.q_positions.push_back(given_.tokens - 1 - step * (count - 1 - i));
    }
    OracleResult const oracle = compute_oracle(input);
    double const tolerance = out_tolerance(oracle).value();
    TensorView const found = every(last(view(out.data(), given_.heads, given_.value_dim), group));
    int wrong = 0;
    for (Index row = 0; row < count; ++row) {
      bool right = true;  // and not "no error is too large": a NaN is wrong too
      for (Index i = 0; i < group * given_.value_dim; ++i) {
        double const expected = oracle.out[static_cast<std::size_t>(row * group * given_.value_dim + i)];
        right = right && std::abs(load(given_.dtype, found.at(0, row, 0), i) - expected) <= tolerance;
      }
      wrong += right ? 0 : 1;
    }
    return wrong;
  }

  [[nodiscard]] float scale() const { return 1.0f / std::sqrt(static_cast<float>(given_.dim)); }
  [[nodiscard]] TensorView view(std::byte const* data, Index heads, Index dim) const {
    return dense<void const>(data, given_.dtype, given_.batch, given_.tokens, heads, dim);
  }

  Device& device_;
  DeviceCase given_;
  Mask mask_;
  Operand q_, k_, v_;
  std::unique_ptr<DeviceMemory> out_, lse_;
  std::map<std::pair<int, SlotId>, std::unique_ptr<DeviceMemory>> states_;
  std::vector<Prepared> folds_;
};

/// Merges and finishes of random states; their results are the tests' to check.
CaseResult run_state_case(Device& device, DeviceCase const& given) {
  std::size_t const bytes = state_bytes(given.batch, given.heads, given.tokens, given.value_dim);
  std::vector<std::byte> const host = RandomTensor(DType::f32)(static_cast<Index>(bytes / sizeof(float)));
  auto const into = device.allocate(bytes), from = device.allocate(bytes);
  device.upload(host, into->data());
  device.upload(host, from->data());
  auto view = [&](DeviceMemory const& memory) {
    return state_view(memory.data(), given.batch, given.heads, given.tokens, given.value_dim);
  };
  CaseResult result;
  result.kernel = given.op;
  if (given.op == "merge") {
    result.bytes = 3.0 * static_cast<double>(bytes);
    result.seconds =
        time_repeats(device, given.repeat, [&] { device.merge(view(*from), view(*into), Start::carried); });
    return result;
  }
  Index const rows = given.batch * given.heads * given.tokens;
  auto const out =
      device.allocate(static_cast<std::size_t>(rows * given.value_dim) * size_bytes(given.dtype));
  auto const lse = device.allocate(static_cast<std::size_t>(rows) * sizeof(float));
  Output const output{
      .out = dense<void>(out->data(), given.dtype, given.batch, given.tokens, given.heads, given.value_dim),
      .lse = reinterpret_cast<float*>(lse->data()),
      .lse_batch_stride = given.heads * given.tokens,
      .lse_head_stride = given.tokens};
  result.bytes = static_cast<double>(bytes + out->bytes() + lse->bytes());
  result.seconds = time_repeats(device, given.repeat, [&] { device.finish(view(*from), output); });
  return result;
}

}  // namespace

CaseResult run_case(Device& device, DeviceCase const& given) {
  check(given);
  if (given.op == "fold") return FoldCase(device, given).run();
  if (given.op == "merge" || given.op == "finish") return run_state_case(device, given);
  throw std::invalid_argument(fmt::format("op {}: must be fold, merge or finish", given.op));
}

}  // namespace plait::bench
