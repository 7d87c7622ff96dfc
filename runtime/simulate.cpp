#include "plait/simulate.hpp"

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>
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

/// What the steps of a plan cost on a machine.
class Costs {
 public:
  Costs(Plan const& plan, Machine const& machine)
      : plan_(plan), machine_(machine), bytes_(plan.blocks.size(), unknown) {}

  [[nodiscard]] double bytes(BlockId id) const {
    if (static_cast<std::size_t>(id) >= bytes_.size()) bytes_.resize(plan_.blocks.size(), unknown);
    double& known = bytes_[static_cast<std::size_t>(id)];
    if (known == unknown) known = static_cast<double>(plait::bytes(plan_.block(id), plan_.problem.shape));
    return known;
  }
  [[nodiscard]] std::size_t node_of(std::size_t rank) const {
    return rank / static_cast<std::size_t>(machine_.ranks_per_node);
  }
  [[nodiscard]] Link const& link(std::size_t from, std::size_t to) const {
    return node_of(from) == node_of(to) ? machine_.node : machine_.network;
  }
  [[nodiscard]] double on_link(BlockId id, Link const& link) const {
    return link.message_seconds + bytes(id) / link.bytes_per_second;
  }
  /// Whether the link takes it from its sender whole, though the receiver has not begun the round.
  [[nodiscard]] bool leaves_early(BlockId id, Link const& link) const {
    return link.buffer_bytes > 0 && bytes(id) <= link.buffer_bytes;
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

  /// At home, the parts of all other ranks are merged one after the other.
  [[nodiscard]] double reducing_seconds(Reduction const& part) const {
    double const once =
        plait::merge_seconds(merge_bytes(plan_.block(part.state), plan_.problem.shape), machine_);
    return part.into == at_rest ? 0.0 : static_cast<double>(plan_.ranks() - 1) * once;
  }

 private:
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

  Plan const& plan_;
  Machine const& machine_;
  static constexpr double unknown = -1.0;
  mutable std::vector<double> bytes_;  ///< by block, once asked for
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
  Simulator(Plan const& plan, Machine const& machine, Record record, double within)
      : plan_(plan),
        machine_(machine),
        costs_(plan, machine),
        record_(record),
        within_(within),
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
    bool in_time = true;
    for (std::size_t round = 0; round < plan_.rounds() && in_time; ++round) {
      play(round);
      in_time = std::ranges::max(now_) <= within_;
    }
    auto const last = std::ranges::max_element(now_);
    if (last != now_.end()) {
      result_.seconds = *last;
      result_.critical_rank = static_cast<int>(last - now_.begin());
      result_.critical = paths_[static_cast<std::size_t>(last - now_.begin())];
    }
    return std::move(result_);
  }

 private:
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
    begun_ = now_;
    begun_paths_ = paths_;
    stretch(index);
    for (std::size_t rank = 0; rank < ranks_; ++rank) compute(rank, index);
    computed_ = now_;
    flights_.clear();
    for (std::size_t from = 0; from < ranks_; ++from) {
      std::size_t turn = 0;
      for (Transfer const& send : plan_.programs[from].round(index).sends) {
        auto const to = static_cast<std::size_t>(send.peer);
        flights_.push_back({ready(from, to, send.block), turn++, from, to, send.block});
      }
    }
    for (std::size_t from = 0; from < ranks_; ++from) {
      std::size_t turn = 0;
      for (Reduction const& part : plan_.programs[from].round(index).reductions) {
        auto const to = static_cast<std::size_t>(plan_.block(part.state).home);
        if (to != from) flights_.push_back({ready(from, to, part.state), turn++, from, to, part.state});
      }
    }
    slow_links();
    std::ranges::stable_sort(flights_, {},
                             [](Flight const& flight) { return std::pair(flight.ready, flight.turn); });
    for (Flight const& flight : flights_) fly(flight, index);
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      result_.exposed_comm_seconds[rank] += now_[rank] - computed_[rank];
    }
    for (std::size_t rank = 0; rank < ranks_; ++rank) merge_reduced(rank, index);
  }

  /// When a transfer of the round at hand may begin.
  [[nodiscard]] double ready(std::size_t from, std::size_t to, BlockId block) const {
    bool const early = costs_.leaves_early(block, costs_.link(from, to));
    return early ? begun_[from] : std::max(begun_[from], begun_[to]);
  }

  /// What each rank's links keep of their speed while it computes in the round at hand. The cores that
  /// compute move what it sends and what it receives, so the loss is in proportion to the bytes that go each
  /// way at once: none if they go one way only, all of it if as many go each way. And to how many of its
  /// crowd compute meanwhile: cores that do not are free to move bytes.
  void slow_links() {
    link_share_.assign(ranks_, 1.0);
    if (machine_.link_share_computing == 1.0) return;
    std::vector<double> sent(ranks_);
    std::vector<double> received(ranks_);
    for (Flight const& flight : flights_) {
      sent[flight.from] += costs_.bytes(flight.block);
      received[flight.to] += costs_.bytes(flight.block);
    }
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      double const most = std::max(sent[rank], received[rank]);
      if (most == 0 || computed_[rank] == begun_[rank]) continue;
      double const both_ways = std::min(sent[rank], received[rank]) / most;
      link_share_[rank] = 1.0 - (1.0 - machine_.link_share_computing) * both_ways * computing_share(rank);
    }
  }

  /// What a link keeps of its speed in the round at hand because neither of its ends computes.
  [[nodiscard]] double exposed_share(std::size_t from, std::size_t to) const {
    bool const computes = computed_[from] > begun_[from] || computed_[to] > begun_[to];
    return computes ? 1.0 : machine_.link_share_exposed;
  }

  /// The share of its crowd that computes while the rank does, in the round at hand.
  [[nodiscard]] double computing_share(std::size_t rank) const {
    auto const size = static_cast<std::size_t>(machine_.crowd_ranks);
    std::size_t const first = rank / size * size;
    double together = 0.0;
    for (std::size_t other = first; other < std::min(first + size, ranks_); ++other) {
      together +=
          std::max(0.0, std::min(computed_[rank], computed_[other]) - std::max(begun_[rank], begun_[other]));
    }
    return together / (static_cast<double>(size) * (computed_[rank] - begun_[rank]));
  }

  void merge_reduced(std::size_t rank, std::size_t index) {
    for (Reduction const& part : plan_.programs[rank].round(index).reductions) {
      if (part.into == at_rest) continue;
      double const seconds = costs_.reducing_seconds(part);
      record(Event::Kind::merge, rank, index, part.state, -1, now_[rank], now_[rank] + seconds);
      now_[rank] += seconds;
      paths_[rank].merge += seconds;
    }
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
        costs_.steps(rank, index, [&](Event::Kind, BlockId, double seconds) { share.work += seconds; });
        // A rank that only waits copies too, on the cores that others compute on.
        if (share.work == 0) share.work = costs_.copying_seconds(plan_.programs[rank].round(index));
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
    costs_.steps(rank, index, [&](Event::Kind kind, BlockId block, double seconds) {
      seconds *= stretch_[rank];
      if (kind != Event::Kind::wait) record(kind, rank, index, block, -1, now, now + seconds);
      now += seconds;
      bool const folds = kind == Event::Kind::fold || kind == Event::Kind::wait;
      (folds ? path.fold : path.merge) += seconds;
    });
  }

  void fly(Flight const& flight, std::size_t round) {
    auto const [ready, turn, from, to, block] = flight;
    std::size_t const source = costs_.node_of(from);
    std::size_t const target = costs_.node_of(to);
    bool const local = source == target;
    Link const& link = costs_.link(from, to);
    double const size = costs_.bytes(block);
    double const on_link = costs_.on_link(block, link) / exposed_share(from, to);
    auto const serve = [&](std::vector<Port>& ports, std::size_t rank) {
      return ports[rank].serve(ready, on_link, computed_[rank], link_share_[rank]);
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
    // What the link has taken from the sender and not yet sent keeps the receiver alone.
    double const held =
        link.buffer_bytes == 0 ? end : std::max(ready, served - link.buffer_bytes / link.bytes_per_second);
    // It was ready when its sender, or the later of the two, had begun; from then on it was on its way, or
    // waiting for a link.
    Spent const begun = begun_paths_[begun_[from] == ready ? from : to];
    for (auto const& [rank, until] : {std::pair(from, std::min(held, end)), std::pair(to, end)}) {
      if (until <= now_[rank]) continue;
      Spent path = begun;
      (local ? path.node : path.network) += std::min(served, until) - ready;
      path.latency += std::max(0.0, until - served);
      now_[rank] = until;
      paths_[rank] = path;
    }
  }

  Plan const& plan_;
  Machine const& machine_;
  Costs costs_;
  Record record_;
  double within_;
  std::size_t ranks_;
  std::vector<double> now_;         ///< per rank: when its next round begins
  std::vector<Spent> paths_;        ///< per rank: the chain that ends then
  std::vector<double> begun_;       ///< per rank: when the round at hand began
  std::vector<Spent> begun_paths_;  ///< per rank: the chain that ended then
  std::vector<double> computed_;
  std::vector<double> stretch_;     ///< per rank, of the round at hand
  std::vector<double> busy_until_;  ///< per rank: when it last stopped computing
  std::vector<Flight> flights_;
  std::vector<double> link_share_;  ///< per rank, of the round at hand: of its links' speed while it computes
  std::vector<Port> send_[2];       ///< by level (node, network) and rank
  std::vector<Port> receive_[2];
  std::vector<Port> node_out_;
  std::vector<Port> node_in_;
  Simulation result_;
};

/// What a round takes of a rank whose peers have all begun it.
struct LeastRound {
  double computing = 0.0;  ///< its steps at their fastest
  double links = 0.0;      ///< its own end of a link, and its node's port, for what it sends or receives
  double merging = 0.0;    ///< what has been reduced, after that
  bool early = false;      ///< whether some of what moves may do so in another round

  [[nodiscard]] double together() const { return std::max(computing, links) + merging; }
  /// Of this round alone: what moves early may have moved before the round, and may go on after it.
  [[nodiscard]] double alone() const { return early ? computing + merging : together(); }
};

LeastRound least_round(Plan const& plan, Machine const& machine, Costs const& costs, std::size_t rank,
                       std::size_t index) {
  Round const round = plan.programs[rank].round(index);
  LeastRound least;
  costs.steps(rank, index, [&](Event::Kind, BlockId, double seconds) { least.computing += seconds; });
  if (machine.crowd_ranks > 1) least.computing /= std::max(1.0, machine.alone_speedup);
  auto const move = [&](auto const& transfers, auto&& peer_of, auto&& block_of) {
    double on_node = 0.0;
    double on_network = 0.0;
    double on_port = 0.0;
    for (auto const& transfer : transfers) {
      auto const peer = static_cast<std::size_t>(peer_of(transfer));
      if (peer == rank) continue;
      bool const local = costs.node_of(rank) == costs.node_of(peer);
      Link const& link = costs.link(rank, peer);
      (local ? on_node : on_network) += costs.on_link(block_of(transfer), link);
      least.early = least.early || link.buffer_bytes > 0;
      if (!local && machine.port_bytes_per_second > 0) {
        on_port += costs.bytes(block_of(transfer)) / machine.port_bytes_per_second;
      }
    }
    if (on_node > 0) least.links = std::max(least.links, on_node + machine.node.latency_seconds);
    if (on_network > 0) {
      least.links = std::max(least.links, std::max(on_network, on_port) + machine.network.latency_seconds);
    }
  };
  auto const peer = [](Transfer const& transfer) { return transfer.peer; };
  auto const block = [](Transfer const& transfer) { return transfer.block; };
  move(round.sends, peer, block);
  move(round.receives, peer, block);
  move(
      round.reductions, [&](Reduction const& part) { return plan.block(part.state).home; },
      [](Reduction const& part) { return part.state; });
  for (Reduction const& part : round.reductions) least.merging += costs.reducing_seconds(part);
  return least;
}

}  // namespace

Simulation simulate(Plan const& plan, Machine const& machine, Record record, double within) {
  validate(machine);
  return Simulator(plan, machine, record, within).run();
}

SampledSeconds sampled_seconds(Plan const& plan, std::span<int const> ranks, Machine const& machine) {
  validate(machine);
  Costs const costs(plan, machine);
  double least = 0.0;
  std::vector<double> slowest;  // by round
  for (int const rank : ranks) {
    double alone = 0.0;
    slowest.resize(plan.programs[static_cast<std::size_t>(rank)].rounds());
    for (std::size_t index = 0; index < slowest.size(); ++index) {
      LeastRound const round = least_round(plan, machine, costs, static_cast<std::size_t>(rank), index);
      alone += round.alone();
      slowest[index] = std::max(slowest[index], round.together());
    }
    least = std::max(least, alone);
  }
  return {.least = least, .lockstep = std::accumulate(slowest.begin(), slowest.end(), 0.0)};
}

struct LeastSoFar::State {
  std::vector<int> ranks;
  Machine machine;
  std::optional<Costs> costs;  ///< of the plan, once it is known
  std::size_t rounds;          ///< so far
  std::vector<double> alone;   ///< seconds so far, by place in `ranks`
};

LeastSoFar::LeastSoFar(std::vector<int> ranks, Machine const& machine) {
  validate(machine);
  std::vector<double> alone(ranks.size());
  state_ = std::make_unique<State>(State{std::move(ranks), machine, {}, 0, std::move(alone)});
}

LeastSoFar::~LeastSoFar() = default;

double LeastSoFar::seconds(Plan const& plan) {
  auto& [ranks, machine, costs, rounds, alone] = *state_;
  if (!costs) costs.emplace(plan, machine);
  std::size_t last = rounds;
  double least = 0.0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    auto const rank = static_cast<std::size_t>(ranks[i]);
    last = plan.programs[rank].rounds();
    for (std::size_t round = rounds; round < last; ++round) {
      alone[i] += least_round(plan, machine, *costs, rank, round).alone();
    }
    least = std::max(least, alone[i]);
  }
  rounds = last;
  return least;
}

}  // namespace plait
