#include "executor.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "state_rows.hpp"

namespace plait {

Executor::Executor(Plan const& plan, int rank, Device& device, Transport& transport,
                   AttentionOptions const& options)
    : plan_(plan),
      rank_(rank),
      device_(device),
      transport_(transport),
      options_(options),
      memory_(plan, rank, device),
      meeting_(std::make_shared<std::vector<float>>(largest_meeting())) {
  find_finishing_folds();
  for (std::size_t index = 0; index < program().folds.size(); ++index) {
    prepare(program().folds[index], finishing_folds_.contains(index));
  }
}

void Executor::find_finishing_folds() {
  struct Touch {
    std::optional<std::size_t> fold;  ///< the index of the fold that touched the slot last, if a fold did
    std::size_t round = 0;
  };
  std::map<SlotId, Touch> last;
  std::size_t fold_index = 0;
  std::size_t finish_index = 0;
  for (std::size_t index = 0; index < program().rounds(); ++index) {
    Round const round = program().round(index);
    for (Transfer const& transfer : round.sends) last[transfer.slot] = {};
    for (Fold const& step : round.folds) last[step.state] = {fold_index++, index};
    for (Merge const& step : round.merges) last[step.from] = last[step.into] = {};
    for (Reduction const& step : round.reductions) last[step.from] = last[step.into] = {};
    for (Finish const& step : round.finishes) {
      std::size_t const number = finish_index++;
      if (step.from == at_rest) continue;
      Touch const touch = last[step.from];
      // An output slot is free for the finish in its own round only.
      if (!touch.fold || (step.into != at_rest && touch.round != index)) continue;
      Block const& folded = plan_.block(program().folds[*touch.fold].q);
      Block const& finished = plan_.block(step.state);
      if (folded.slice != finished.slice || !(folded.heads == finished.heads)) continue;
      finishing_folds_.emplace(*touch.fold, step);
      finished_by_folds_.insert(number);
    }
    for (Transfer const& transfer : round.receives) last[transfer.slot] = {};
  }
}

void Executor::prepare(Fold const& step, bool finishes) {
  auto& prepared = fold_plans_[{step.q, step.kv, step.start, finishes}];
  if (prepared) return;
  Shape const& shape = plan_.problem.shape;
  Slice const q = plan_.block(step.q).slice;
  Slice const kv = plan_.block(step.kv).slice;
  prepared = device_.prepare({.q = q,
                              .kv = kv,
                              .bands = plan_.problem.mask.restricted(q, kv),
                              .dtype = shape.dtype,
                              .head_dim = shape.head_dim,
                              .value_dim = shape.value_dim,
                              .lanes = shape.batch * shape.group() * plan_.block(step.q).heads.size(),
                              .group = shape.group(),
                              .start = step.start,
                              .finishes = finishes});
}

std::uint64_t Executor::fold_plan_bytes() const {
  std::uint64_t sum = 0;
  for (auto const& [blocks, prepared] : fold_plans_) sum += prepared->bytes();
  return sum;
}

std::vector<std::string> Executor::kernels() const {
  std::set<std::string> names;
  for (auto const& [blocks, prepared] : fold_plans_) names.insert(prepared->kernel());
  return {names.begin(), names.end()};
}

RunReport Executor::run(LocalTensors const& tensors, Clock::time_point start) {
  memory_.use(tensors);
  start_ = start;
  report_ = {};
  steps_.clear();
  step_is_open_ = false;
  std::size_t next_fold = 0;
  std::size_t next_finish = 0;
  for (std::size_t index = 0; index < program().rounds(); ++index) {
    Round const round = program().round(index);
    bool const moves = !round.sends.empty() || !round.receives.empty();
    if (moves) {
      end_step();
      transport_.start(exchange(index), memory_.keep_alive());
    }
    for (Fold const& step : round.folds) {
      timed(Event::Kind::fold, index, step.kv,
            [&] { fold(next_fold++, moves && transport_.uses_multiprocessors()); });
    }
    for (Merge const& step : round.merges) {
      timed(Event::Kind::merge, index, step.state, [&] { merge(step); });
    }
    for (Finish const& step : round.finishes) {
      if (finished_by_folds_.contains(next_finish++)) continue;
      timed(Event::Kind::finish, index, step.state, [&] { finish(step); });
    }
    if (moves) timed(Event::Kind::wait, index, -1, [&] { transport_.finish(); });
    if (!round.reductions.empty()) timed(Event::Kind::wait, index, -1, [&] { reduce(index); });
    if (options_.progress) options_.progress(index + 1, program().rounds());
  }
  end_step();
  transport_.complete("the end of the run");
  device_.synchronize();
  report_.seconds = since_start(Clock::now());
  report_times();
  report_flights();
  return std::exchange(report_, {});
}

Exchange Executor::exchange(std::size_t index) const {
  Round const round = program().round(index);
  auto const messages = [&](std::span<Transfer const> transfers) {
    std::vector<Message> list;
    list.reserve(transfers.size());
    for (Transfer const& transfer : transfers) {
      list.push_back({.peer = transfer.peer,
                      .block = static_cast<std::uint64_t>(transfer.block),
                      .pieces = memory_.pieces(transfer.block, transfer.slot, transfer.whole)});
    }
    return list;
  };
  return {.round = index, .sends = messages(round.sends), .receives = messages(round.receives)};
}

std::size_t Executor::largest_meeting() const {
  std::size_t largest = 0;
  for (std::size_t index = 0; index < program().rounds(); ++index) {
    std::size_t floats = 0;
    for (Reduction const& step : program().round(index).reductions) {
      bool const home = step.into != at_rest;
      floats += (home ? 2 : 1) * row_floats(memory_.state(step.state, at_rest));
    }
    largest = std::max(largest, floats);
  }
  return largest;
}

void Executor::reduce(std::size_t index) {
  Operator const merge = merge_of_rows(plan_.problem.shape.value_dim);
  ReduceScatter work{.round = index,
                     .what = "all ranks' states meet at home (reduce-scatter)",
                     .counts = std::vector<std::size_t>(static_cast<std::size_t>(plan_.ranks())),
                     .parts = {},
                     .result = {}};
  auto const reductions = program().round(index).reductions;
  float* next = meeting_->data();
  for (Reduction const& step : reductions) {
    StateView const part = memory_.state(step.state, step.from);
    pack_rows(part, next);
    next += row_floats(part);
    auto const home = static_cast<std::size_t>(plan_.block(step.state).home);
    work.counts[home] += row_floats(part) * sizeof(float) / merge.element_bytes;
  }
  auto const region = [](float* begin, std::size_t floats) {
    return Region{reinterpret_cast<std::byte*>(begin), floats * sizeof(float)};
  };
  float* result = next;
  work.parts = region(meeting_->data(), static_cast<std::size_t>(next - meeting_->data()));
  work.result =
      region(result, work.counts[static_cast<std::size_t>(rank_)] * merge.element_bytes / sizeof(float));
  transport_.reduce_scatter(work, merge, meeting_);
  for (Reduction const& step : reductions) {
    if (step.into == at_rest) continue;
    StateView const state = memory_.state(step.state, step.into);
    unpack_rows(result, state);
    result += row_floats(state);
  }
}

void Executor::fold(std::size_t index, bool beside_transfers) {
  Fold const& step = program().folds[index];
  auto const finishing = finishing_folds_.find(index);
  bool const finishes = finishing != finishing_folds_.end();
  HeadRange const held = plan_.block(step.kv).heads;
  HeadRange const wanted = plan_.block(step.q).heads;
  Slice const heads{wanted.begin - held.begin, wanted.end - held.begin};
  FoldOperands operands{.q = memory_.q(step.q, step.q_slot),
                        .k = memory_.k(step.kv, step.kv_slot).heads_of(heads.begin, heads.end),
                        .v = memory_.v(step.kv, step.kv_slot).heads_of(heads.begin, heads.end),
                        .state = memory_.state(step.q, step.state),
                        .scale = static_cast<float>(plan_.problem.scale),
                        .beside_transfers = beside_transfers};
  if (finishes) operands.output = memory_.output(finishing->second.out, finishing->second.into);
  device_.fold(*fold_plans_.at({step.q, step.kv, step.start, finishes}), operands);
}

void Executor::merge(Merge const& step) {
  device_.merge(memory_.state(step.state, step.from), memory_.state(step.state, step.into), step.start);
}

void Executor::finish(Finish const& step) {
  device_.finish(memory_.state(step.state, step.from), memory_.output(step.out, step.into));
}

template <class Work>
void Executor::timed(Event::Kind kind, std::size_t round, BlockId block, Work&& work) {
  auto const waits = [](Event::Kind of) { return of == Event::Kind::wait; };
  bool const goes_on = step_is_open_ && waits(steps_.back().kind) == waits(kind);
  if (!goes_on) {
    end_step();
    steps_.push_back({.kind = kind,
                      .rank = rank_,
                      .round = static_cast<std::uint32_t>(round),
                      .block = block,
                      .start_seconds = static_cast<double>(device_.mark())});
    step_is_open_ = true;
  }
  work();
  if (options_.record == Record::timeline) end_step();
}

void Executor::end_step() {
  if (!std::exchange(step_is_open_, false)) return;
  steps_.back().end_seconds = static_cast<double>(device_.mark());
}

void Executor::report_times() {
  std::vector<Clock::time_point> const marks = device_.take_marks();
  for (Event& step : steps_) {
    step.start_seconds = since_start(marks[static_cast<std::size_t>(step.start_seconds)]);
    step.end_seconds = since_start(marks[static_cast<std::size_t>(step.end_seconds)]);
    bool const waits = step.kind == Event::Kind::wait;
    (waits ? report_.exposed_comm_seconds : report_.compute_seconds) += step.end_seconds - step.start_seconds;
  }
  if (options_.record == Record::timeline) report_.timeline = std::move(steps_);
}

void Executor::report_flights() {
  std::vector<Flight> const flights = transport_.take_flights();
  if (options_.record != Record::timeline) return;
  for (Flight const& flight : flights) {
    Round const round = program().round(flight.round);
    bool const sent = flight.direction == Flight::Direction::send;
    Transfer const& transfer = (sent ? round.sends : round.receives)[flight.message];
    report_.timeline.push_back({.kind = sent ? Event::Kind::send : Event::Kind::receive,
                                .rank = rank_,
                                .peer = transfer.peer,
                                .round = static_cast<std::uint32_t>(flight.round),
                                .block = transfer.block,
                                .start_seconds = since_start(flight.start),
                                .end_seconds = since_start(flight.end)});
  }
}

}  // namespace plait
