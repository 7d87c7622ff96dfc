#include "plait/simulate.hpp"

#include <algorithm>
#include <utility>

namespace plait {
namespace {

class Simulator {
 public:
  Simulator(Plan const& plan, Machine const& machine, Record record)
      : plan_(plan),
        machine_(machine),
        record_(record),
        now_(static_cast<std::size_t>(plan.ranks())),
        send_link_(now_.size()),
        receive_link_(now_.size()) {
    result_.exposed_comm_seconds.resize(now_.size());
  }

  Simulation run() {
    for (std::size_t round = 0; round < plan_.rounds(); ++round) play(round);
    for (double const end : now_) result_.seconds = std::max(result_.seconds, end);
    return std::move(result_);
  }

 private:
  std::uint64_t bytes(Block const& block) const { return plait::bytes(block, plan_.problem.shape); }

  double fold_seconds(Fold const& fold) const {
    Shape const& shape = plan_.problem.shape;
    Block const& q = plan_.block(fold.q);
    auto const pairs = static_cast<double>(plan_.problem.mask.area(q.slice, plan_.block(fold.kv).slice));
    auto const heads = static_cast<double>(shape.batch * q.heads.size() * shape.group());
    return 2.0 * pairs * heads * static_cast<double>(shape.head_dim + shape.value_dim) /
           machine_.flops_per_second;
  }

  double merge_seconds(Merge const& merge) const {
    constexpr double reads_and_writes = 3.0;  // both states in, one out
    return reads_and_writes * static_cast<double>(bytes(plan_.block(merge.state))) /
           machine_.memory_bytes_per_second;
  }

  /// Reads the state, writes the output.
  double finish_seconds(Finish const& finish) const {
    return static_cast<double>(bytes(plan_.block(finish.state)) + bytes(plan_.block(finish.out))) /
           machine_.memory_bytes_per_second;
  }

  /// Records an event; returns when it ends.
  double event(Event::Kind kind, std::size_t rank, std::size_t round, BlockId block, int peer, double start,
               double seconds) {
    if (record_ == Record::timeline) {
      result_.timeline.push_back({.kind = kind,
                                  .rank = static_cast<std::int32_t>(rank),
                                  .peer = peer,
                                  .round = static_cast<std::uint32_t>(round),
                                  .block = block,
                                  .start_seconds = start,
                                  .end_seconds = start + seconds});
    }
    return start + seconds;
  }

  void play(std::size_t index) {
    std::vector<double> computed = now_;
    for (std::size_t rank = 0; rank < now_.size(); ++rank) {
      Round const round = plan_.programs[rank].round(index);
      for (Fold const& fold : round.folds) {
        computed[rank] =
            event(Event::Kind::fold, rank, index, fold.kv, -1, computed[rank], fold_seconds(fold));
      }
      for (Merge const& merge : round.merges) {
        computed[rank] =
            event(Event::Kind::merge, rank, index, merge.state, -1, computed[rank], merge_seconds(merge));
      }
      for (Finish const& finish : round.finishes) {
        computed[rank] =
            event(Event::Kind::finish, rank, index, finish.state, -1, computed[rank], finish_seconds(finish));
      }
    }
    std::vector<double> done = computed;
    for (std::size_t from = 0; from < now_.size(); ++from) {
      for (Transfer const& send : plan_.programs[from].round(index).sends) {
        auto const to = static_cast<std::size_t>(send.peer);
        double const start = std::max({now_[from], now_[to], send_link_[from], receive_link_[to]});
        double const on_link =
            static_cast<double>(bytes(plan_.block(send.block))) / machine_.bytes_per_second;
        send_link_[from] = receive_link_[to] = start + on_link;
        double const seconds = on_link + machine_.latency_seconds;
        double const end = event(Event::Kind::send, from, index, send.block, send.peer, start, seconds);
        event(Event::Kind::receive, to, index, send.block, static_cast<int>(from), start, seconds);
        done[from] = std::max(done[from], end);
        done[to] = std::max(done[to], end);
      }
    }
    for (std::size_t rank = 0; rank < now_.size(); ++rank) {
      result_.exposed_comm_seconds[rank] += done[rank] - computed[rank];
    }
    now_ = std::move(done);
  }

  Plan const& plan_;
  Machine machine_;
  Record record_;
  std::vector<double> now_;        ///< per rank: when its next round begins
  std::vector<double> send_link_;  ///< per rank: when its link is free
  std::vector<double> receive_link_;
  Simulation result_;
};

}  // namespace

Simulation simulate(Plan const& plan, Machine const& machine, Record record) {
  return Simulator(plan, machine, record).run();
}

}  // namespace plait
