#include "head_mesh.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "exchange.hpp"
#include "gather.hpp"
#include "mesh_needs.hpp"
#include "mesh_pieces.hpp"
#include "mesh_ranks.hpp"
#include "plait/plan_builder.hpp"

namespace plait {
namespace {

class HeadMesh {
 public:
  HeadMesh(Problem const& problem, Layouts const& layouts, std::string name, int head_ranks, Grid grid,
           Extent const& extent)
      : mask_(problem.mask),
        layouts_(layouts),
        shape_(problem.shape),
        u_(head_ranks),
        grid_(grid),
        plan_(problem, layouts, std::move(name), extent),
        place_(plan_, head_ranks, grid, mesh_order(shape_, grid)),
        needs_(mask_, layouts, place_, head_ranks, grid) {}

  Plan write() && {
    if (plan_.foretells()) foretell();
    ranks_.resize(static_cast<std::size_t>(plan_.ranks()));
    exchange_heads();
    gather_mesh();
    std::vector<int> folding;
    std::vector<int> busy;  // in the round at hand
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      if (!place_.beside(rank)) continue;
      prepare(rank);
      folding.push_back(rank);
    }
    if (u_ > 1) finish_rows_without_keys(plan_, mask_);
    for (std::size_t round = 0; round <= gathered_by_ || !done(folding); ++round) {
      if (round < due_.size()) {
        for (Due const& due : due_[round]) receive(due);
      }
      // Of ranks that are not followed nothing matters before they have all keys.
      busy.clear();
      std::ranges::copy_if(folding, std::back_inserter(busy),
                           [&](int rank) { return place_.followed(rank) || at(rank).keys_ready <= round; });
      for (int const rank : busy) send_back(rank);
      for (int const rank : busy) fold(rank, round);
      merge_returned();
      for (int const rank : busy) finish(rank, round);
      returned_ = std::exchange(returning_, {});
      plan_.end_round();
    }
    return std::move(plan_).done();
  }

 private:
  RankPieces& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] HeadRange heads_of(int rank) const {
    return share_of_heads({0, shape_.kv_heads}, place_.share_of(rank), u_);
  }
  [[nodiscard]] bool keeps(Slice q, Slice kv) const { return mask_.meets(q, kv); }
  /// Of so many ranks.
  [[nodiscard]] Index tokens_of(std::size_t ranks) const {
    return static_cast<Index>(ranks) * mask_.q_tokens() / plan_.ranks();
  }

  template <class Held>
  BlockId add(Slice slice, HeadRange heads, int home) {
    constexpr bool is_row = std::is_same_v<Held, Row>;
    return is_row ? plan_.add_q(slice, heads, home) : plan_.add_kv(slice, heads, home);
  }
  /// The part of one of the slices of `home` that is for one share of the heads.
  template <class Held>
  BlockId part(Slice slice, HeadRange heads, int home) {
    if (u_ > 1) return add<Held>(slice, heads, home);
    // All heads: a block that there is, unless it is cut.
    auto const blocks = std::is_same_v<Held, Row> ? plan_.q_blocks(home) : plan_.kv_blocks(home);
    auto const whole = std::ranges::find(blocks, slice, [&](BlockId id) { return plan_.block(id).slice; });
    return whole == blocks.end() ? add<Held>(slice, heads, home) : *whole;
  }

  [[nodiscard]] bool writes_either(int from, int to) const { return plan_.writes(from) || plan_.writes(to); }
  /// Whether more matters of a transfer than its time: rows go back where they came from.
  template <class Held>
  [[nodiscard]] bool moves(int from, int to) const {
    return std::is_same_v<Held, Row> || writes_either(from, to);
  }
  /// Whether what a rank has of its own group is known to any that is written.
  template <class Held>
  [[nodiscard]] bool sends(int rank) const {
    return std::is_same_v<Held, Row> ? place_.along(rank) : place_.below(rank);
  }

  /// Gathers arrivals, in the order of their rounds, into new blocks; alone, an arrival is its own block.
  template <class Held>
  void hold(std::vector<Arrival> const& arrivals, int rank, bool own, std::vector<Held>& held) {
    HeadRange const heads = heads_of(rank);
    bool const named = own ? sends<Held>(rank) : plan_.writes(rank);
    gather(arrivals, gathered_);
    auto const& [gatherings, taken_by] = gathered_;
    std::size_t const before = held.size();
    held.reserve(before + gatherings.size());
    for (Gathering const& gathering : gatherings) {
      Held& piece = held.emplace_back();
      Arrival const& first = arrivals[gathering.first];
      piece.slice = gathering.slice;
      piece.own = own;
      piece.ready = gathering.round + 1;
      gathered_by_ = std::max(gathered_by_, piece.ready);
      piece.block = !named                   ? unnamed
                    : gathering.count > 1    ? add<Held>(piece.slice, heads, Block::gathered)
                    : first.block == unnamed ? part<Held>(piece.slice, heads, first.from)
                                             : first.block;
    }
    if (own && !place_.followed(rank)) return;  // what other groups have matters, not how it came
    for (std::size_t i = 0; i < arrivals.size(); ++i) {
      if (moves<Held>(arrivals[i].from, rank)) held[before + taken_by[i]].arrivals.push_back(arrivals[i]);
    }
    for (std::size_t i = before; i < held.size(); ++i) {
      if (held[i].arrivals.empty()) continue;
      if (due_.size() < held[i].ready) due_.resize(held[i].ready);
      due_[held[i].ready - 1].push_back({rank, std::is_same_v<Held, Row>, i});  // they are of one round
    }
  }

  /// Of what the mesh moves, what comes to ranks that are written, and the states that go back for it.
  void foretell() {
    std::size_t const before = plan_.blocks();
    for (int const rank : plan_.written()) {
      HeadRange const heads = heads_of(rank);
      for (MeshStep const step : place_.order()) {
        int const from = place_.source(rank, step);
        // Pieces are sent whole, and are as long as slices of one rank, or longer.
        Index tokens = 0;
        int const first = place_.group_of(from) * u_;
        for (int owner = first; owner < first + u_; ++owner) {
          for (Slice const slice : (step.queries ? layouts_.q : layouts_.kv).slices(owner)) {
            if (needs_.comes(rank, step, slice)) tokens += slice.size();
          }
        }
        if (tokens == 0) continue;
        auto const send = [&](int source, int target, BlockId id) {
          plan_.send({source, at_rest, id}, {target, at_rest, id}, id);
        };
        BlockId const block = step.queries ? plan_.add_q({0, tokens}, heads, Block::gathered)
                                           : plan_.add_kv({0, tokens}, heads, Block::gathered);
        send(from, rank, block);
        if (step.queries) send(rank, from, plan_.state_of(block));
      }
    }
    plan_.foretell(before);
  }

  /// The all-to-all of a group, in the order of a pairwise exchange.
  void exchange_heads() {
    Slice const all_q{0, mask_.q_tokens()};
    Slice const all_kv{0, mask_.kv_tokens()};
    Lists<Slice> q;  // by rank
    Lists<Slice> kv;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      bool const matters = place_.beside(rank) || place_.above(rank);
      for (Slice const slice : layouts_.q.slices(rank)) {
        if (place_.beside(rank) && (u_ == 1 || keeps(slice, all_kv))) q.add(slice);
      }
      q.end_list();
      for (Slice const slice : layouts_.kv.slices(rank)) {
        if (matters && keeps(all_q, slice)) kv.add(slice);
      }
      kv.end_list();
    }
    // Queries of other rows of the mesh do not go to ranks that are written, nor do keys of other columns:
    // when they come is enough. In the last round comes something from every rank that has anything.
    if (!mask_.bands().empty()) {
      for_each_source(0, [&](std::size_t round, int) { gathered_by_ = round + 1; });
    }
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      if (place_.beside(rank)) {
        for_each_source(rank, [&](std::size_t round, int from) {
          if (!kv[static_cast<std::size_t>(from)].empty()) at(rank).keys_ready = round + 1;
        });
        exchange(rank, q, at(rank).rows);
      }
      if (place_.followed(rank) || place_.below(rank)) exchange(rank, kv, at(rank).columns);
    }
  }

  /// From whom parts come in the exchange of heads: visit(round, rank).
  template <class Visit>
  void for_each_source(int rank, Visit&& visit) const {
    auto const others = static_cast<std::size_t>(u_ - 1);
    std::size_t const steps_a_round = steps_per_round(others, tokens_of(others), 4);
    for (int distance = 1; distance < u_; ++distance) {
      visit(static_cast<std::size_t>(distance - 1) / steps_a_round,
            place_.group_of(rank) * u_ + (place_.share_of(rank) + distance) % u_);
    }
  }

  /// Whether half of what stays at home is kept for later, when results travel. Where heads are spread over
  /// more than four ranks each keeps so little that it is better folded while others' comes, and a mesh
  /// beside them sends it on; where keys travel too, their last ones meet what stays at home last.
  [[nodiscard]] bool keeps_a_half() const {
    return u_ == 1 ? grid_.a > 1 && grid_.b == 1 : u_ <= 4 && grid_.a * grid_.b == 1;
  }

  template <class Held>
  void exchange(int rank, Lists<Slice> const& slices, std::vector<Held>& held) {
    HeadRange const heads = heads_of(rank);
    // What stays of queries in one slice is folded while others' come, a half, and while outputs go.
    auto const mine = slices[static_cast<std::size_t>(rank)];
    bool const cuts = std::is_same_v<Held, Row> && keeps_a_half();
    for (Slice const slice : cuts ? at_least_two(mine) : std::vector(mine.begin(), mine.end())) {
      Held& piece = held.emplace_back();
      piece.block = sends<Held>(rank) ? part<Held>(slice, heads, rank) : unnamed;
      piece.slice = slice;
    }
    arrivals_.clear();
    for_each_source(rank, [&](std::size_t round, int from) {
      bool const named = writes_either(from, rank);
      for (Slice const slice : slices[static_cast<std::size_t>(from)]) {
        arrivals_.push_back({.round = round,
                             .from = from,
                             .piece = resting,
                             .block = named ? part<Held>(slice, heads, from) : unnamed,
                             .slice = slice});
      }
    });
    hold(arrivals_, rank, true, held);
  }

  /// What a step brings to a rank, of its source's own: visit(piece, number) for each piece. Where no rank
  /// that is written sends or receives keys so, they are those of its source's group, in one.
  template <class Visit>
  void arriving(int rank, MeshStep step, Visit&& visit) {
    int const source = place_.source(rank, step);
    RankPieces& from = at(source);
    if (step.queries) {
      for (std::size_t i = 0; i < from.rows.size() && from.rows[i].own; ++i) {
        if (needs_.queries(rank, from.rows[i].slice)) visit(from.rows[i], i);
      }
    } else if (place_.below(rank) || place_.followed(source)) {
      for (std::size_t i = 0; i < from.columns.size() && from.columns[i].own; ++i) {
        if (needs_.keys(rank, from.columns[i].slice)) visit(from.columns[i], i);
      }
    } else {  // in which round rows have met them is the same however they are cut
      for (Slice const slice : needs_.keys_of(place_.group_of(source))) {
        if (needs_.keys(rank, slice)) visit(Piece{.block = unnamed, .slice = slice}, resting);
      }
    }
  }

  void gather_mesh() {
    std::vector<MeshStep> const& order = place_.order();
    std::size_t const first = gathered_by_;
    std::size_t const steps_a_round =
        steps_per_round(order.size(), tokens_of(order.size() * static_cast<std::size_t>(u_)), 8);
    if (std::size_t const used = needs_.steps_used(order); used > 0) {
      gathered_by_ = first + (used - 1) / steps_a_round + 1;
    }
    std::vector<Arrival> q_arrivals;
    std::vector<Arrival> kv_arrivals;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      if (!place_.beside(rank) && !place_.below(rank)) continue;
      q_arrivals.clear();
      kv_arrivals.clear();
      for (std::size_t const index : place_.steps_that_matter(rank)) {
        MeshStep const step = order[index];
        int const from = place_.source(rank, step);
        arriving(rank, step, [&](Piece const& piece, std::size_t number) {
          (step.queries ? q_arrivals : kv_arrivals)
              .push_back({first + index / steps_a_round, from, number, piece.block, piece.slice});
          if (step.queries) ++at(from).rows[number].states_expected;
        });
      }
      hold(q_arrivals, rank, false, at(rank).rows);
      hold(kv_arrivals, rank, false, at(rank).columns);
      if (!place_.beside(rank)) continue;
      for (int distance = grid_.b - 1; distance > 0; --distance) {
        if (!needs_.brings(rank, {.queries = false, .distance = distance})) continue;
        at(rank).keys_ready = first + place_.key_step(distance) / steps_a_round + 1;
        break;
      }
    }
  }

  [[nodiscard]] bool done(std::vector<int> const& folding) {
    return std::ranges::all_of(folding, [&](int rank) {
      return std::ranges::all_of(at(rank).rows, [](Row const& row) { return row.finished && !row.leaving; });
    });
  }

  void receive(Due due) {
    auto const piece_of = [&](int rank, std::size_t number) -> Piece& {
      return due.is_row ? at(rank).rows[number] : at(rank).columns[number];
    };
    Piece& piece = piece_of(due.rank, due.number);
    piece.slot = plan_.acquire(due.rank, piece.block);
    for (Arrival const& arrival : piece.arrivals) {
      SlotId const from = arrival.piece == resting ? at_rest : piece_of(arrival.from, arrival.piece).slot;
      plan_.send({arrival.from, from, arrival.block}, {due.rank, piece.slot, piece.block}, arrival.block);
    }
  }

  /// States of foreign rows go to whom the queries came from; outputs of own rows to whom they belong.
  void send_back(int rank) {
    for (Row& row : at(rank).rows) {
      if (!std::exchange(row.leaving, false)) continue;
      for (Arrival const& arrival : row.arrivals) {
        if (row.own) {
          BlockId const out = plan_.out_of(arrival.block);
          plan_.send({rank, row.out, plan_.out_of(row.block)}, {arrival.from, at_rest, out}, out);
        } else {
          BlockId const state = plan_.state_of(arrival.block);
          SlotId const slot = plan_.acquire(arrival.from, state);
          plan_.send({rank, row.state, plan_.state_of(row.block)}, {arrival.from, slot, state}, state);
          returning_.push_back({arrival.from, arrival.piece, slot});
        }
      }
      plan_.release(rank, row.own ? row.out : row.state);
    }
  }

  SlotId state_of(int rank, Row& row) {
    if (row.state == at_rest) row.state = plan_.acquire(rank, plan_.state_of(row.block));
    return row.state;
  }

  void merge_returned() {
    for (Return const& back : returned_) {
      Row& row = at(back.rank).rows[back.row];
      plan_.merge(back.rank, row.block, back.slot, state_of(back.rank, row));
      plan_.release(back.rank, back.slot);
      --row.states_expected;
    }
  }

  /// Folds a row with all columns that are here. @returns whether there was anything to fold
  bool fold(int rank, Row& row, std::size_t round) {
    bool folded = false;
    if (row.pending == 0 || row.ready > round) return false;
    auto const& [rows, columns, here, keys_ready, turn, early] = at(rank);
    row.pending = columns.size() - here;
    // Of what is not written, whether there is anything to fold is enough.
    for (; row.met < here && (plan_.writes(rank) || !folded); ++row.met) {
      Piece const& column = columns[row.met];
      if (!keeps(row.slice, column.slice)) continue;
      plan_.fold(rank, row.block, row.slot, column.block, column.slot, state_of(rank, row));
      folded = true;
    }
    row.met = here;
    return folded;
  }

  void prepare(int rank) {
    std::size_t at_home = 0;
    for (Row& row : at(rank).rows) {
      row.pending = place_.followed(rank) ? at(rank).columns.size() : 1;
      row.finished = row.own && !place_.followed(rank);
      at_home += row.arrivals.empty() ? 1 : 0;
    }
    at(rank).early = keeps_a_half() ? (at_home + 1) / 2 : at_home;
  }

  void fold(int rank, std::size_t round) {
    if (!place_.followed(rank)) return wait_for_keys(rank, round);
    auto& [rows, columns, here, keys_ready, turn, early] = at(rank);
    while (here < columns.size() && columns[here].ready <= round) ++here;
    bool busy = false;
    for (Row& row : rows) {
      if (!row.own) busy = fold(rank, row, round) || busy;
    }
    if (busy) return;
    // Once all is here, outputs that travel home leave a share of the work at a time, before what stays.
    bool const in_turns = (u_ > 1 || keeps_a_half()) && round >= gathered_by_;
    if (in_turns && turn == 0) turn = share_of_a_round(rank);
    Index folded = 0;
    for (bool const stays : {false, true}) {
      std::size_t number = 0;
      for (Row& row : rows) {
        if (!row.own || row.arrivals.empty() != stays || (in_turns && folded >= turn)) continue;
        if (!in_turns && stays && number++ >= early) continue;
        if (in_turns) folded += area_left(rank, row);
        fold(rank, row, round);
      }
    }
  }

  /// Foreign rows are folded as soon as they and keys are there: with the last keys they are done.
  void wait_for_keys(int rank, std::size_t round) {
    for (Row& row : at(rank).rows) {
      if (std::max(row.ready, at(rank).keys_ready) <= round) row.pending = 0;
    }
  }

  /// A quarter of what is left, but no less than what any rank folds at once, as all wait for the outputs of
  /// a round: its longest row, and what stays with one rank.
  [[nodiscard]] Index share_of_a_round(int rank) {
    Index left = 0;
    Index longest = 0;
    Index stays = 0;
    for (Row const& row : at(rank).rows) {
      if (!row.own) continue;
      left += area_left(rank, row);
      Index const area = mask_.area(row.slice, {0, mask_.kv_tokens()});
      longest = std::max(longest, area);
      stays += row.arrivals.empty() ? area : 0;
    }
    return std::max({left / 4 + 1, longest, stays});
  }

  /// Pairs of a row that are to be folded.
  [[nodiscard]] Index area_left(int rank, Row const& row) {
    Index area = 0;
    auto const& columns = at(rank).columns;
    for (std::size_t i = row.met; i < columns.size(); ++i) area += mask_.area(row.slice, columns[i].slice);
    return area;
  }

  /// Foreign rows that have met all columns, and own rows that have all states back too.
  void finish(int rank, std::size_t round) {
    for (Row& row : at(rank).rows) {
      if (row.finished || row.pending > 0) continue;
      if (!row.own) {
        row.finished = row.leaving = true;
        plan_.release(rank, row.slot);
      } else if (row.states_expected == 0 && round + 1 >= gathered_by_) {  // nothing is sent from it any more
        finish(rank, row);
      }
    }
  }

  void finish(int rank, Row& row) {
    row.finished = true;
    bool const travels = !row.arrivals.empty();
    if (travels) row.out = plan_.acquire(rank, plan_.out_of(row.block));
    plan_.finish(rank, row.block, row.state, row.out);
    plan_.release(rank, row.state);
    plan_.release(rank, row.slot);
    row.leaving = travels;
  }

  Mask const& mask_;
  Layouts const& layouts_;
  Shape shape_;
  int u_;
  Grid grid_;
  PlanBuilder plan_;
  MeshRanks place_;
  std::vector<RankPieces> ranks_;
  MeshNeeds needs_;
  std::vector<Arrival> arrivals_;      ///< of the rank at hand
  Gathered gathered_;                  ///< from them
  std::size_t gathered_by_ = 0;        ///< the round in which everything is where it is folded
  std::vector<std::vector<Due>> due_;  ///< by round
  std::vector<Return> returning_;
  std::vector<Return> returned_;
};

}  // namespace

Plan head_mesh_plan(Problem const& problem, Layouts const& layouts, std::string name, int head_ranks,
                    Grid grid, Extent const& extent) {
  return HeadMesh(problem, layouts, std::move(name), head_ranks, grid, extent).write();
}

}  // namespace plait
