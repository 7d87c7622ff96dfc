#include "executor.hpp"

#include <utility>

namespace plait {

Executor::Executor(Plan const& plan, int rank, Device& device, Transport& transport,
                   AttentionOptions const& options)
    : plan_(plan),
      rank_(rank),
      device_(device),
      transport_(transport),
      options_(options),
      memory_(plan, rank, device) {
  Shape const& shape = plan.problem.shape;
  for (Fold const& step : program().folds) {
    auto& prepared = fold_plans_[{step.q, step.kv}];
    if (prepared) continue;
    Slice const q = plan.block(step.q).slice;
    Slice const kv = plan.block(step.kv).slice;
    prepared = device.prepare({.q = q,
                               .kv = kv,
                               .bands = plan.problem.mask.restricted(q, kv),
                               .dtype = shape.dtype,
                               .head_dim = shape.head_dim,
                               .value_dim = shape.value_dim});
  }
}

std::uint64_t Executor::fold_plan_bytes() const {
  std::uint64_t sum = 0;
  for (auto const& [blocks, prepared] : fold_plans_) sum += prepared->bytes();
  return sum;
}

RunReport Executor::run(LocalTensors const& tensors, Clock::time_point start) {
  memory_.use(tensors);
  start_ = start;
  report_ = {};
  for (std::size_t index = 0; index < program().rounds(); ++index) {
    Round const round = program().round(index);
    bool const moves = !round.sends.empty() || !round.receives.empty();
    if (moves) transport_.start(exchange(index), memory_.keep_alive());
    for (Fold const& step : round.folds) {
      report_.compute_seconds += timed(Event::Kind::fold, index, step.kv, [&] { fold(step); });
    }
    for (Merge const& step : round.merges) {
      report_.compute_seconds += timed(Event::Kind::merge, index, step.state, [&] { merge(step); });
    }
    device_.synchronize();
    if (moves) {
      std::vector<Flight> flights;
      report_.exposed_comm_seconds +=
          timed(Event::Kind::wait, index, -1, [&] { flights = transport_.finish(); });
      record_flights(index, flights);
    }
    if (options_.progress) options_.progress(index + 1, program().rounds());
  }
  for (Finish const& step : program().finishes) {
    report_.compute_seconds +=
        timed(Event::Kind::finish, program().rounds(), step.state, [&] { finish(step); });
  }
  device_.synchronize();
  report_.seconds = since_start(Clock::now());
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
                      .pieces = memory_.pieces(transfer.block, transfer.slot)});
    }
    return list;
  };
  return {.round = index, .sends = messages(round.sends), .receives = messages(round.receives)};
}

void Executor::fold(Fold const& step) {
  device_.fold(*fold_plans_.at({step.q, step.kv}), {.q = memory_.q(step.q, step.q_slot),
                                                    .k = memory_.k(step.kv, step.kv_slot),
                                                    .v = memory_.v(step.kv, step.kv_slot),
                                                    .state = memory_.state(step.q, step.state),
                                                    .start = step.start,
                                                    .scale = static_cast<float>(plan_.problem.scale)});
}

void Executor::merge(Merge const& step) {
  device_.merge(memory_.state(step.state, step.from), memory_.state(step.state, step.into), step.start);
}

void Executor::finish(Finish const& step) {
  device_.finish(memory_.state(step.state, step.slot), {.out = memory_.out(step.state),
                                                        .lse = memory_.lse(step.state),
                                                        .lse_batch_stride = memory_.lse_batch_stride(),
                                                        .lse_head_stride = memory_.lse_head_stride()});
}

template <class Work>
double Executor::timed(Event::Kind kind, std::size_t round, BlockId block, Work&& work) {
  Clock::time_point const begin = Clock::now();
  work();
  Clock::time_point const end = Clock::now();
  if (options_.record == Record::timeline) {
    report_.timeline.push_back({.kind = kind,
                                .rank = rank_,
                                .round = static_cast<std::uint32_t>(round),
                                .block = block,
                                .start_seconds = since_start(begin),
                                .end_seconds = since_start(end)});
  }
  return std::chrono::duration<double>(end - begin).count();
}

void Executor::record_flights(std::size_t index, std::vector<Flight> const& flights) {
  if (options_.record != Record::timeline) return;
  Round const round = program().round(index);
  for (Flight const& flight : flights) {
    bool const sent = flight.direction == Flight::Direction::send;
    Transfer const& transfer = (sent ? round.sends : round.receives)[flight.message];
    report_.timeline.push_back({.kind = sent ? Event::Kind::send : Event::Kind::receive,
                                .rank = rank_,
                                .peer = transfer.peer,
                                .round = static_cast<std::uint32_t>(index),
                                .block = transfer.block,
                                .start_seconds = since_start(flight.start),
                                .end_seconds = since_start(flight.end)});
  }
}

}  // namespace plait
