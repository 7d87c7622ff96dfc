#include "plait/simulate.hpp"

#include <algorithm>
#include <utility>

#include "crowd.hpp"
#include "plait/work.hpp"

namespace plait {
namespace {

/// One end of a link, or a node's ports: never idle while messages are ready, in whatever order it takes
/// them.
class Port {
 public:
  /// @returns when it has served the message too that is ready at `ready` and takes it so many seconds, or
  /// longer: until `slow_until` it has that share of its speed
  double serve(double ready, double seconds, double slow_until = 0.0, double share = 1.0) {
    double const start = std::max(free_, ready);
    double const slow = std::max(0.0, slow_until - start);
    return free_ = start + std::min(seconds / share, seconds + slow * (1.0 - share));
  }

 private:
  double free_ = 0.0;  ///< from when on
};

/// A transfer of the round at hand.
struct Flight {
  double ready;
  std::size_t turn;  ///< among the sender's of the round: ranks send side by side, each in its order
  std::size_t from;
  std::size_t to;
  BlockId block;
};

class Simulator {
 public:
  Simulator(Plan const& plan, Machine const& machine, Record record)
      : plan_(plan),
        machine_(machine),
        record_(record),
        ranks_(static_cast<std::size_t>(plan.ranks())),
        now_(ranks_),
        paths_(ranks_),
        busy_until_(ranks_) {
    for (auto& ports : {&send_, &receive_}) {
      for (auto& level : *ports) level.resize(ranks_);
    }
    node_out_.resize(ranks_);
    node_in_.resize(ranks_);
    result_.exposed_comm_seconds.resize(ranks_);
    result_.network_bytes.resize(ranks_);
  }

  Simulation run() {
    for (std::size_t round = 0; round < plan_.rounds(); ++round) play(round);
    auto const last = std::ranges::max_element(now_);
    if (last != now_.end()) {
      result_.seconds = *last;
      result_.critical_rank = static_cast<int>(last - now_.begin());
      result_.critical = paths_[static_cast<std::size_t>(last - now_.begin())];
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] double bytes(BlockId id) const {
    return static_cast<double>(plait::bytes(plan_.block(id), plan_.problem.shape));
  }
  [[nodiscard]] std::size_t node_of(std::size_t rank) const {
    return rank / static_cast<std::size_t>(machine_.ranks_per_node);
  }

  [[nodiscard]] double fold_seconds(Fold const& fold) const {
    return seconds(fold_work(plan_.problem, plan_.block(fold.q), plan_.block(fold.kv), fold.start), machine_);
  }

  [[nodiscard]] double merge_seconds(Merge const& merge) const {
    return plait::merge_seconds(merge_bytes(plan_.block(merge.state), plan_.problem.shape), machine_);
  }

  [[nodiscard]] double finish_seconds(Finish const& finish) const {
    double const touched =
        finish_bytes(plan_.block(finish.state), plan_.block(finish.out), plan_.problem.shape);
    return plait::finish_seconds(touched, machine_);
  }

  void record(Event::Kind kind, std::size_t rank, std::size_t round, BlockId block, int peer, double start,
              double end) {
    if (record_ == Record::nothing) return;
    result_.timeline.push_back({.kind = kind,
                                .rank = static_cast<std::int32_t>(rank),
                                .peer = peer,
                                .round = static_cast<std::uint32_t>(round),
                                .block = block,
                                .start_seconds = start,
                                .end_seconds = end});
  }

  void play(std::size_t index) {
    // What a rank has at hand when its round begins, and what its own steps make of it.
    std::vector<double> const begun = now_;
    std::vector<Spent> const paths = paths_;
    stretch(index);
    for (std::size_t rank = 0; rank < ranks_; ++rank) compute(rank, index);
    computed_ = now_;
    flights_.clear();
    for (std::size_t from = 0; from < ranks_; ++from) {
      std::size_t turn = 0;
      for (Transfer const& send : plan_.programs[from].round(index).sends) {
        auto const to = static_cast<std::size_t>(send.peer);
        flights_.push_back({std::max(begun[from], begun[to]), turn++, from, to, send.block});
      }
    }
    for (std::size_t from = 0; from < ranks_; ++from) {
      std::size_t turn = 0;
      for (Reduction const& part : plan_.programs[from].round(index).reductions) {
        auto const to = static_cast<std::size_t>(plan_.block(part.state).home);
        if (to != from) flights_.push_back({std::max(begun[from], begun[to]), turn++, from, to, part.state});
      }
    }
    std::ranges::stable_sort(flights_, {},
                             [](Flight const& flight) { return std::pair(flight.ready, flight.turn); });
    for (Flight const& flight : flights_) fly(flight, index, begun, paths);
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      result_.exposed_comm_seconds[rank] += now_[rank] - computed_[rank];
    }
    for (std::size_t rank = 0; rank < ranks_; ++rank) merge_reduced(rank, index);
  }

  /// At home, the parts of all other ranks are merged one after the other.
  void merge_reduced(std::size_t rank, std::size_t index) {
    for (Reduction const& part : plan_.programs[rank].round(index).reductions) {
      if (part.into == at_rest) continue;
      double const once =
          plait::merge_seconds(merge_bytes(plan_.block(part.state), plan_.problem.shape), machine_);
      double const seconds = static_cast<double>(ranks_ - 1) * once;
      record(Event::Kind::merge, rank, index, part.state, -1, now_[rank], now_[rank] + seconds);
      now_[rank] += seconds;
      paths_[rank].merge += seconds;
    }
  }

  /// The rank's steps of a round: visit(kind, block, seconds) for each, and last for what moves meanwhile, as
  /// a wait.
  template <class Visit>
  void steps(std::size_t rank, std::size_t index, Visit&& visit) const {
    Round const round = plan_.programs[rank].round(index);
    double computing = 0.0;
    auto const step = [&](Event::Kind kind, BlockId block, double seconds) {
      visit(kind, block, seconds);
      computing += seconds;
    };
    for (Fold const& fold : round.folds) step(Event::Kind::fold, fold.kv, fold_seconds(fold));
    for (Merge const& merge : round.merges) step(Event::Kind::merge, merge.state, merge_seconds(merge));
    for (Finish const& finish : round.finishes) {
      step(Event::Kind::finish, finish.state, finish_seconds(finish));
    }
    bool const moves = !round.sends.empty() || !round.receives.empty();
    if (computing == 0 || !moves) return;
    double const turns = std::min(machine_.round_seconds, machine_.round_share * computing);
    visit(Event::Kind::wait, -1, turns + copying_seconds(round));
  }

  /// What the bytes that move in a round cost the cores that compute.
  [[nodiscard]] double copying_seconds(Round const& round) const {
    if (machine_.host_seconds_per_byte == 0) return 0.0;
    double moved = 0.0;
    for (auto const* transfers : {&round.sends, &round.receives}) {
      for (Transfer const& transfer : *transfers) moved += bytes(transfer.block);
    }
    return moved * machine_.host_seconds_per_byte;
  }

  /// How many times as long as while all ranks of its crowd compute each rank takes for its steps of a round.
  void stretch(std::size_t index) {
    stretch_.assign(ranks_, 1.0);
    if (machine_.crowd_ranks == 1 || machine_.alone_speedup == 1.0) return;
    auto const size = static_cast<std::size_t>(machine_.crowd_ranks);
    std::vector<Share> crowd;
    for (std::size_t first = 0; first < ranks_; first += size) {
      crowd.clear();
      std::size_t const last = std::min(first + size, ranks_);
      for (std::size_t rank = first; rank < last; ++rank) {
        Share& share = crowd.emplace_back(Share{.begin = now_[rank], .busy_until = busy_until_[rank]});
        steps(rank, index, [&](Event::Kind, BlockId, double seconds) { share.work += seconds; });
        // A rank that only waits copies too, on the cores that others compute on.
        if (share.work == 0) share.work = copying_seconds(plan_.programs[rank].round(index));
      }
      share_cores(crowd, machine_);
      for (std::size_t rank = first; rank < last; ++rank) {
        Share const& share = crowd[rank - first];
        if (share.work == 0) continue;
        stretch_[rank] = (share.end - share.begin) / share.work;
        busy_until_[rank] = share.end;
      }
    }
  }

  /// The rank's steps of a round, one after the other.
  void compute(std::size_t rank, std::size_t index) {
    double& now = now_[rank];
    Spent& path = paths_[rank];
    steps(rank, index, [&](Event::Kind kind, BlockId block, double seconds) {
      seconds *= stretch_[rank];
      if (kind != Event::Kind::wait) record(kind, rank, index, block, -1, now, now + seconds);
      now += seconds;
      bool const folds = kind == Event::Kind::fold || kind == Event::Kind::wait;
      (folds ? path.fold : path.merge) += seconds;
    });
  }

  void fly(Flight const& flight, std::size_t round, std::vector<double> const& begun,
           std::vector<Spent> const& paths) {
    auto const [ready, turn, from, to, block] = flight;
    std::size_t const source = node_of(from);
    std::size_t const target = node_of(to);
    bool const local = source == target;
    Link const& link = local ? machine_.node : machine_.network;
    double const size = bytes(block);
    double const on_link = link.message_seconds + size / link.bytes_per_second;
    auto const serve = [&](std::vector<Port>& ports, std::size_t rank) {
      return ports[rank].serve(ready, on_link, computed_[rank], machine_.link_share_computing);
    };
    double served = std::max(serve(send_[local ? 0 : 1], from), serve(receive_[local ? 0 : 1], to));
    if (!local && machine_.port_bytes_per_second > 0) {
      double const on_port = size / machine_.port_bytes_per_second;
      served =
          std::max({served, node_out_[source].serve(ready, on_port), node_in_[target].serve(ready, on_port)});
    }
    double const end = served + link.latency_seconds;
    if (!local) result_.network_bytes[from] += static_cast<std::uint64_t>(size);
    record(Event::Kind::send, from, round, block, static_cast<int>(to), served - on_link, end);
    record(Event::Kind::receive, to, round, block, static_cast<int>(from), served - on_link, end);
    // It was ready when the later of the two had begun; from then on it was on its way, or waiting for a
    // link.
    Spent path = paths[begun[from] >= begun[to] ? from : to];
    (local ? path.node : path.network) += served - ready;
    path.latency += link.latency_seconds;
    for (std::size_t const rank : {from, to}) {
      if (end <= now_[rank]) continue;
      now_[rank] = end;
      paths_[rank] = path;
    }
  }

  Plan const& plan_;
  Machine machine_;
  Record record_;
  std::size_t ranks_;
  std::vector<double> now_;   ///< per rank: when its next round begins
  std::vector<Spent> paths_;  ///< per rank: the chain that ends then
  std::vector<double> computed_;
  std::vector<double> stretch_;     ///< per rank, of the round at hand
  std::vector<double> busy_until_;  ///< per rank: when it last stopped computing
  std::vector<Flight> flights_;
  std::vector<Port> send_[2];  ///< by level (node, network) and rank
  std::vector<Port> receive_[2];
  std::vector<Port> node_out_;
  std::vector<Port> node_in_;
  Simulation result_;
};

}  // namespace

Simulation simulate(Plan const& plan, Machine const& machine, Record record) {
  validate(machine);
  return Simulator(plan, machine, record).run();
}

}  // namespace plait
