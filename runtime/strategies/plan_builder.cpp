#include "plait/plan_builder.hpp"

#include <algorithm>
#include <functional>
#include <utility>

namespace plait {

namespace {

constexpr Index least_piece = 64;  ///< tokens

}  // namespace

Index cut_of(Slice slice, Index piece, Index pieces) {
  constexpr Index gpu_tile = 128;
  constexpr Index cpu_tile = 32;
  Index const even = slice.size() * piece / pieces;
  Index const tile = slice.size() >= 4 * gpu_tile * pieces   ? gpu_tile
                     : slice.size() >= 2 * cpu_tile * pieces ? cpu_tile
                                                             : 1;
  return slice.begin + (piece < pieces ? (even + tile / 2) / tile * tile : even);
}

Index pieces_to_travel(Layout const& kv, Index asked) {
  Index longest = 0;
  for (int rank = 0; rank < kv.ranks(); ++rank) {
    for (Slice const slice : kv.slices(rank)) longest = std::max(longest, slice.size());
  }
  if (asked == 0 || kv.ranks() == 1) return pieces_to_travel(longest, kv.ranks());
  return std::clamp<Index>(longest / least_piece, 1, asked);
}

Index pieces_to_travel(Index tokens, int ranks) {
  Index const hops = ranks - 1;
  if (hops == 0) return 1;
  // A slice is folded in a time that grows with the square of its length, and travels in one that grows with
  // its length: of long ones less is to be hidden, and each cut makes more folds.
  constexpr Index most_rounds = 8;
  constexpr Index all_hidden = Index{1} << 27;
  Index const rounds_wanted =
      std::clamp<Index>(all_hidden / std::max<Index>(tokens * tokens, 1), 1, most_rounds);
  return std::max<Index>(1, std::min((rounds_wanted + hops - 1) / hops, tokens / least_piece));
}

PlanBuilder::PlanBuilder(Problem const& problem, Layouts const& layouts, std::string strategy,
                         Extent const& extent, Index kv_pieces)
    : plan_{.problem = problem,
            .layouts = layouts,
            .strategy = std::move(strategy),
            .blocks = {},
            .programs = {}},
      watch_(extent.watch),
      kv_pieces_(kv_pieces) {
  auto const count = static_cast<std::size_t>(layouts.q.ranks());
  nth_written_.assign(count, extent.ranks.empty() ? 0 : none);
  for (int const rank : extent.ranks) at(nth_written_, rank) = 0;
  for (int rank = 0; rank < ranks(); ++rank) {
    if (!writes(rank)) continue;
    at(nth_written_, rank) = static_cast<int>(written_.size());
    written_.push_back(rank);
  }
  rank_states_.resize(written_.size());
  plan_.programs.resize(count);
  q_lists_.assign(count, none);
  kv_lists_.assign(count, none);
  // Lists that strategies look at stay where they are while others are added.
  std::size_t q_slices = 0;
  std::size_t kv_pieces_at_most = 0;
  for (int rank = 0; rank < ranks(); ++rank) {
    q_slices += layouts.q.slices(rank).size();
    kv_pieces_at_most += layouts.kv.slices(rank).size() * static_cast<std::size_t>(kv_pieces_);
  }
  q_blocks_.reserve(q_slices);
  kv_blocks_.reserve(kv_pieces_at_most);
  plan_.blocks.reserve(3 * q_slices + kv_pieces_at_most);
  if (!writes_all()) return;
  for (int rank = 0; rank < ranks(); ++rank) {
    list_q_blocks(rank);
    list_kv_blocks(rank);
  }
}

void PlanBuilder::list_q_blocks(int rank) {
  at(q_lists_, rank) = static_cast<int>(q_blocks_.size());
  for (Slice const slice : plan_.layouts.q.slices(rank)) {
    q_blocks_.add(add_q(slice, all_heads(), rank));
  }
  q_blocks_.end_list();
}

void PlanBuilder::list_kv_blocks(int rank) {
  at(kv_lists_, rank) = static_cast<int>(kv_blocks_.size());
  cut_.resize(static_cast<std::size_t>(kv_pieces_));
  for (Slice const slice : plan_.layouts.kv.slices(rank)) {
    // A short slice has fewer pieces than others: they would cost more than they hide.
    Index const pieces = std::clamp<Index>(slice.size() / least_piece, 1, kv_pieces_);
    for (Index piece = 0; piece < pieces; ++piece) {
      Slice const part{cut_of(slice, piece, pieces), cut_of(slice, piece + 1, pieces)};
      if (part.empty()) continue;
      cut_[static_cast<std::size_t>(piece)].push_back(add_kv(part, all_heads(), rank));
    }
  }
  for (auto& blocks : cut_) {
    kv_blocks_.add_all(blocks);
    kv_blocks_.end_list();
    blocks.clear();
  }
}

std::vector<int> PlanBuilder::written_or_before(int distance) const {
  if (writes_all()) return written_;
  std::vector<int> found = written_;
  for (int const rank : written_) found.push_back((rank - distance % ranks() + ranks()) % ranks());
  return ascending(std::move(found));
}

BlockId PlanBuilder::add(Tensor tensor, Slice slice, HeadRange heads, int home) {
  plan_.blocks.push_back({.tensor = tensor, .slice = slice, .heads = heads, .home = home});
  return static_cast<BlockId>(plan_.blocks.size() - 1);
}

BlockId PlanBuilder::add_q(Slice slice, HeadRange heads, int home) {
  BlockId const q = add(Tensor::q, slice, heads, home);
  add(Tensor::state, slice, heads, home);
  add(Tensor::out, slice, heads, home);
  return q;
}

BlockId PlanBuilder::add_kv(Slice slice, HeadRange heads, int home) {
  return add(Tensor::kv, slice, heads, home);
}

Index PlanBuilder::pairs(BlockId q, BlockId kv) const {
  return plan_.problem.mask.area(block(q).slice, block(kv).slice);
}

bool PlanBuilder::meet(BlockId q, BlockId kv) const {
  return plan_.problem.mask.meets(block(q).slice, block(kv).slice);
}

bool PlanBuilder::rank_needs(int rank, BlockId kv) const {
  return std::ranges::any_of(plan_.layouts.q.slices(rank),
                             [&](Slice q) { return plan_.problem.mask.meets(q, block(kv).slice); });
}

bool PlanBuilder::rank_serves(int rank, BlockId q) const {
  return std::ranges::any_of(plan_.layouts.kv.slices(rank),
                             [&](Slice kv) { return plan_.problem.mask.meets(block(q).slice, kv); });
}

RankSet PlanBuilder::ranks_that_need(BlockId kv) const {
  return plan_.layouts.q.owners(plan_.problem.mask.queries_of(block(kv).slice));
}

RankSet PlanBuilder::ranks_that_serve(BlockId q) const {
  return plan_.layouts.kv.owners(plan_.problem.mask.keys_of(block(q).slice));
}

SlotId PlanBuilder::acquire(int rank, BlockId id) {
  if (!writes(rank)) return at_rest;
  std::uint64_t const need = bytes(block(id), plan_.problem.shape);
  auto& slots = rank_state(rank).slots;
  FreeSlots* const free = rank_state(rank).best_free(need);
  if (free == nullptr) {
    slots.push_back({.bytes = need, .holds_state = false});
    return static_cast<SlotId>(slots.size() - 1);
  }
  std::ranges::pop_heap(free->heap, std::greater{});
  SlotId const slot = free->heap.back();
  free->heap.pop_back();
  at(slots, slot) = {.bytes = std::max(free->bytes, need), .holds_state = false};
  return slot;
}

/// The smallest that are large enough, else the largest; null if no slot is free.
PlanBuilder::FreeSlots* PlanBuilder::RankState::best_free(std::uint64_t bytes) {
  FreeSlots* best = nullptr;
  for (FreeSlots& some : free) {
    if (some.heap.empty()) continue;
    best = &some;
    if (some.bytes >= bytes) break;
  }
  return best;
}

void PlanBuilder::RankState::add_free(std::uint64_t bytes, SlotId slot) {
  auto some = std::ranges::lower_bound(free, bytes, {}, &FreeSlots::bytes);
  if (some == free.end() || some->bytes != bytes) some = free.insert(some, {bytes, {}});
  some->heap.push_back(slot);
  std::ranges::push_heap(some->heap, std::greater{});
}

void PlanBuilder::release(int rank, SlotId id) {
  if (id != at_rest) rank_state(rank).released.push_back(id);
}

SlotId PlanBuilder::send(int from, SlotId from_slot, int to, BlockId id) {
  SlotId const to_slot = acquire(to, id);
  send({from, from_slot, id}, {to, to_slot, id}, id);
  return to_slot;
}

void PlanBuilder::send(Place from, Place to, BlockId id) {
  if (writes(from.rank)) {
    at(plan_.programs, from.rank)
        .sends.push_back({.peer = to.rank, .block = id, .slot = from.slot, .whole = from.whole});
  }
  if (writes(to.rank)) {
    at(plan_.programs, to.rank)
        .receives.push_back({.peer = from.rank, .block = id, .slot = to.slot, .whole = to.whole});
  }
}

Start PlanBuilder::start_of(int rank, SlotId state) {
  return std::exchange(slot(rank, state).holds_state, true) ? Start::carried : Start::identity;
}

void PlanBuilder::fold(int rank, BlockId q, SlotId q_slot, BlockId kv, SlotId kv_slot, SlotId state) {
  if (!writes(rank)) return;
  at(plan_.programs, rank)
      .folds.push_back({.q = q,
                        .q_slot = q_slot,
                        .kv = kv,
                        .kv_slot = kv_slot,
                        .state = state,
                        .start = start_of(rank, state)});
}

SlotId PlanBuilder::home_state(int rank, BlockId q) {
  if (!writes(rank)) return at_rest;
  home_states_.resize(plan_.blocks.size(), at_rest);
  SlotId& state = home_states_[static_cast<std::size_t>(q)];
  if (state == at_rest) state = acquire(rank, state_of(q));
  return state;
}

void PlanBuilder::fold_at_home(int rank, BlockId q, BlockId kv, SlotId kv_slot) {
  fold(rank, q, at_rest, kv, kv_slot, home_state(rank, q));
}

void PlanBuilder::merge_at_home(int rank, BlockId q, SlotId from) {
  merge(rank, q, from, home_state(rank, q));
}

void PlanBuilder::merge(int rank, BlockId q, SlotId from, SlotId into) {
  if (!writes(rank)) return;
  at(plan_.programs, rank)
      .merges.push_back({.state = state_of(q), .from = from, .into = into, .start = start_of(rank, into)});
}

void PlanBuilder::reduce_at_home(BlockId q, std::vector<SlotId> const& parts) {
  int const home = block(q).home;
  SlotId const into = home_state(home, q);
  bool const folded = writes(home) && start_of(home, into) == Start::carried;
  SlotId const own = folded ? into : at_rest;
  for (int const rank : written_) {
    bool const is_home = rank == home;
    at(plan_.programs, rank)
        .reductions.push_back({.state = state_of(q),
                               .from = is_home ? own : parts[static_cast<std::size_t>(rank)],
                               .into = is_home ? into : at_rest});
  }
}

void PlanBuilder::finish(int rank, BlockId q, SlotId from, SlotId into) {
  if (!writes(rank)) return;
  at(plan_.programs, rank)
      .finishes.push_back({.state = state_of(q), .from = from, .out = out_of(q), .into = into});
}

void PlanBuilder::end_round() {
  for (int const rank : written_) {
    Program& program = at(plan_.programs, rank);
    program.ends.push_back({.sends = static_cast<std::uint32_t>(program.sends.size()),
                            .receives = static_cast<std::uint32_t>(program.receives.size()),
                            .folds = static_cast<std::uint32_t>(program.folds.size()),
                            .merges = static_cast<std::uint32_t>(program.merges.size()),
                            .finishes = static_cast<std::uint32_t>(program.finishes.size()),
                            .reductions = static_cast<std::uint32_t>(program.reductions.size())});
    RankState& state = rank_state(rank);
    if (state.released.empty()) continue;
    for (SlotId const id : state.released) state.add_free(slot(rank, id).bytes, id);
    state.released.clear();
  }
  if (watch_.after_round) watch_.after_round(plan_);
}

void PlanBuilder::foretell(std::size_t blocks) {
  for (int const rank : written_) {
    Program& program = at(plan_.programs, rank);
    program.ends.push_back({.sends = static_cast<std::uint32_t>(program.sends.size()),
                            .receives = static_cast<std::uint32_t>(program.receives.size())});
  }
  watch_.foretold(plan_);
  for (int const rank : written_) at(plan_.programs, rank) = {};
  plan_.blocks.resize(blocks);
}

void PlanBuilder::drop_empty_rounds() {
  std::size_t const rounds = written_.empty() ? 0 : at(plan_.programs, written_.front()).rounds();
  std::vector<char> used(rounds);
  for (int const rank : written_) {
    Program const& program = at(plan_.programs, rank);
    for (std::size_t round = 0; round < rounds; ++round) {
      Program::Cut const before = round == 0 ? Program::Cut{} : program.ends[round - 1];
      if (!(program.ends[round] == before)) used[round] = 1;
    }
  }
  for (int const rank : written_) {
    Program& program = at(plan_.programs, rank);
    std::size_t kept = 0;
    for (std::size_t round = 0; round < rounds; ++round) {
      if (used[round] != 0) program.ends[kept++] = program.ends[round];
    }
    program.ends.resize(kept);
  }
}

Plan PlanBuilder::done() && {
  drop_empty_rounds();
  for (int const rank : written_) {
    for (Slot const& used : rank_state(rank).slots) {
      at(plan_.programs, rank).slots.push_back(used.bytes);
    }
  }
  return std::move(plan_);
}

Plan PlanBuilder::finish_at_home() && {
  // Without the others' programs the last round is known only to ranks that have a step in the last of all.
  bool const all = writes_all();
  std::vector<char> finishes(plan_.programs.size(), all ? 1 : 0);
  for (int const rank : written_) {
    auto const& ends = at(plan_.programs, rank).ends;
    if (ends.empty()) continue;
    Program::Cut const before = ends.size() == 1 ? Program::Cut{} : ends[ends.size() - 2];
    if (!(ends.back() == before)) at(finishes, rank) = 1;
  }
  drop_empty_rounds();
  for (int const rank : written_) {
    if (at(finishes, rank) == 0) continue;
    Program& program = at(plan_.programs, rank);
    auto const blocks = q_blocks(rank);
    home_states_.resize(plan_.blocks.size(), at_rest);
    for (BlockId const q : blocks) {
      finish(rank, q, home_states_[static_cast<std::size_t>(q)], at_rest);
    }
    if (program.ends.empty()) program.ends.emplace_back();
    if (!program.round(program.rounds() - 1).reductions.empty()) program.ends.push_back(program.ends.back());
    program.ends.back().finishes = static_cast<std::uint32_t>(program.finishes.size());
  }
  return std::move(*this).done();
}

}  // namespace plait
