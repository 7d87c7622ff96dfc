#include "plait/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "slot_content.hpp"
#include "verify_form.hpp"

namespace plait {
namespace {

/// Executes all programs side by side and collects what breaks a law.
class Verifier {
 public:
  Verifier(Plan const& plan, std::size_t most) : plan_(plan), faults_(most) {}

  std::vector<Violation> run() {
    if (!well_formed(plan_, faults_)) return faults_.take();
    for (Program const& mine : plan_.programs) {
      contents_.emplace_back(mine.slots.size());
      ended_.emplace_back();
      largest_.emplace_back(mine.slots.size(), 0);
    }
    for (; round_ < plan_.rounds() && !faults_.enough(); ++round_) play_round();
    for (int rank = 0; rank < plan_.ranks() && !faults_.enough(); ++rank) check_end(rank);
    return faults_.take();
  }

 private:
  // The checks below speak of one rank's program at a time.
  Program const& program(int rank) const { return plan_.programs[static_cast<std::size_t>(rank)]; }
  Content& content(int rank, SlotId slot) {
    return contents_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(slot)];
  }
  template <class... Values>
  void fault(Law law, int rank, std::string_view message, Values const&... values) {
    faults_.add(law, rank, round_, message, values...);
  }

  static Block state_of(Block q) {
    q.tensor = Tensor::state;
    return q;
  }

  void play_round() {
    if (reduces()) return reduce();
    check_matching();
    for (int rank = 0; rank < plan_.ranks(); ++rank) check_overwriting(rank);
    // What sends carry is what lies there when the round begins; it arrives when the round ends.
    std::vector<Delivery> arrivals;
    for (int rank = 0; rank < plan_.ranks(); ++rank) collect_arrivals(rank, arrivals);
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      Round const round = program(rank).round(round_);
      for (Fold const& fold : round.folds) play(rank, fold);
      for (Merge const& merge : round.merges) play(rank, merge);
      for (Finish const& finish : round.finishes) play(rank, finish);
    }
    for (Delivery& arrival : arrivals) arrive(arrival.rank, arrival.receive, std::move(arrival.content));
  }

  [[nodiscard]] bool reduces() const {
    return std::ranges::any_of(plan_.programs,
                               [&](Program const& mine) { return !mine.round(round_).reductions.empty(); });
  }

  /// A round of reductions: every rank lists the same blocks, those of one home after the other, and nothing
  /// else.
  void reduce() {
    auto const first = program(0).round(round_).reductions;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      Round const round = program(rank).round(round_);
      if (!round.sends.empty() || !round.receives.empty() || !round.folds.empty() || !round.merges.empty() ||
          !round.finishes.empty()) {
        return fault(Law::matching, rank, "other steps in a round with reductions");
      }
      if (!std::ranges::equal(round.reductions, first, {}, &Reduction::state, &Reduction::state)) {
        return fault(Law::matching, rank, "its reductions are not those of rank 0");
      }
    }
    if (!std::ranges::is_sorted(first, {},
                                [&](Reduction const& one) { return plan_.block(one.state).home; })) {
      return fault(Law::matching, 0, "reductions are not in the order of their homes");
    }
    for (std::size_t index = 0; index < first.size(); ++index) reduce(index);
  }

  /// One reduction: the parts of all ranks meet at home.
  void reduce(std::size_t index) {
    Block const& state = plan_.block(program(0).round(round_).reductions[index].state);
    Content met{.block = state, .parts = {state.slice}, .folded = {}};
    SlotId into = at_rest;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      Reduction const& step = program(rank).round(round_).reductions[index];
      if ((step.into != at_rest) != (rank == state.home)) {
        return fault(Law::homecoming, rank, "{} is reduced elsewhere than at home", describe(state));
      }
      if (rank == state.home) into = step.into;
      if (step.from == at_rest) continue;
      if (!resident(rank, state, step.from, "reduction")) return;
      auto const more = take(rank, step.from, state.slice).folded;
      met.folded.insert(met.folded.end(), more.begin(), more.end());
    }
    if (into == at_rest) return fault(Law::homecoming, 0, "{} has no home", describe(state));
    hold(state.home, into, std::move(met));
  }

  void arrive(int rank, Transfer const& receive, Content content) {
    Block const& block = plan_.block(receive.block);
    Block const& whole = plan_.block(receive.whole);
    if (receive.slot == at_rest) {
      ended_[static_cast<std::size_t>(rank)].push_back(block);
      return;
    }
    if (!block.within(whole) || (block.tensor == Tensor::state && block.slice != whole.slice)) {
      fault(Law::residency, rank, "{} is received as a piece of {}", describe(block), describe(whole));
      return;
    }
    Content const& held = this->content(rank, receive.slot);
    bool const joins = held.block == whole && block.tensor != Tensor::state && !held.has(block.slice) &&
                       block.slice != whole.slice;
    if (joins) {
      for (Slice const part : held.parts) {
        if (!intersect(part, block.slice).empty()) {
          fault(Law::residency, rank, "{} is received over rows that are there", describe(block));
        }
      }
      content.parts = held.parts;
    } else {
      content.parts.clear();
    }
    content.block = whole;
    content.add(block.slice);
    hold(rank, receive.slot, std::move(content));
  }

  /// The rows leave the slot. States are moved, never copied: what two steps used would count twice.
  Content take(int rank, SlotId slot, Slice rows) {
    Content& held = content(rank, slot);
    Content taken = held;
    held.remove(rows);
    if (held.parts.empty()) held = {};
    return taken;
  }

  void hold(int rank, SlotId slot, Content what) {
    Content const& before = content(rank, slot);
    if (before.block && before.block->tensor == Tensor::state) {
      fault(Law::coverage, rank, "{} in slot {} is overwritten before anything uses it",
            describe(*before.block), slot);
    }
    auto& largest = largest_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(slot)];
    if (what.block) largest = std::max(largest, bytes(*what.block, plan_.problem.shape));
    content(rank, slot) = std::move(what);
  }

  /// Between each pair of ranks, the sends of the round and its receives are the same blocks in the same
  /// order.
  void check_matching() {
    struct Half {
      int from, to;
      std::size_t order;
      BlockId block;
    };
    std::vector<Half> sends;
    std::vector<Half> receives;
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      Round const round = program(rank).round(round_);
      for (auto const& send : round.sends) sends.push_back({rank, send.peer, sends.size(), send.block});
      for (auto const& receive : round.receives) {
        receives.push_back({receive.peer, rank, receives.size(), receive.block});
      }
    }
    auto const key = [](Half const& half) { return std::tuple(half.from, half.to, half.order); };
    std::ranges::sort(sends, {}, key);
    std::ranges::sort(receives, {}, key);
    auto const same = [](Half const& a, Half const& b) {
      return a.from == b.from && a.to == b.to && a.block == b.block;
    };
    auto const [send, receive] = std::ranges::mismatch(sends, receives, same);
    if (send != sends.end()) {
      fault(Law::matching, send->from, "sends {} to rank {}, which does not receive it there and then",
            describe(plan_.block(send->block)), send->to);
    } else if (receive != receives.end()) {
      fault(Law::matching, receive->to, "receives {} from rank {}, which does not send it there and then",
            describe(plan_.block(receive->block)), receive->from);
    }
  }

  /// No slot that is being received into is touched by another step of the round; no state is folded or
  /// merged into while it is being sent.
  void check_overwriting(int rank) {
    Round const round = program(rank).round(round_);
    std::vector<SlotId> receiving;
    std::vector<SlotId> sending;
    for (Transfer const& receive : round.receives) {
      if (receive.slot != at_rest) receiving.push_back(receive.slot);
    }
    for (Transfer const& send : round.sends) sending.push_back(send.slot);
    std::ranges::sort(receiving);
    std::ranges::sort(sending);
    auto const untouched = [&](SlotId slot, std::string_view step) {
      if (slot != at_rest && std::ranges::binary_search(receiving, slot)) {
        fault(Law::residency, rank, "slot {} is received into while a {} uses it", slot, step);
      }
    };
    auto const writable = [&](SlotId slot, std::string_view step) {
      untouched(slot, step);
      if (std::ranges::binary_search(sending, slot)) {
        fault(Law::residency, rank, "slot {} is written by a {} while it is being sent", slot, step);
      }
    };
    for (Transfer const& send : round.sends) untouched(send.slot, "send");
    for (Fold const& fold : round.folds) {
      untouched(fold.q_slot, "fold");
      untouched(fold.kv_slot, "fold");
      writable(fold.state, "fold");
    }
    for (Merge const& merge : round.merges) {
      untouched(merge.from, "merge");
      writable(merge.into, "merge");
    }
    for (Finish const& finish : round.finishes) {
      untouched(finish.from, "finish");
      if (finish.into != at_rest) writable(finish.into, "finish");
    }
  }

  /// Whether the rank's layout owns the rows of the block.
  bool owns(int rank, Block const& block) const {
    Layout const& layout = block.tensor == Tensor::kv ? plan_.layouts.kv : plan_.layouts.q;
    return block.home == rank &&
           std::ranges::any_of(layout.slices(rank), [&](Slice slice) { return slice.contains(block.slice); });
  }

  bool resident(int rank, Block const& block, SlotId slot, std::string_view step) {
    return resident(rank, block, slot, block, step);
  }
  /// Whether `block` can be read from `slot` of `rank` now: it is the rank's own input, or a piece of `whole`
  /// that the slot holds.
  bool resident(int rank, Block const& block, SlotId slot, Block const& whole, std::string_view step) {
    if (slot == at_rest) {
      if ((block.tensor == Tensor::q || block.tensor == Tensor::kv) && owns(rank, block)) return true;
      fault(Law::residency, rank, "a {} reads {} at rest, which is not the rank's own", step,
            describe(block));
      return false;
    }
    Content const& held = content(rank, slot);
    if (held.block == whole && block.within(whole) && held.has(block.slice)) return true;
    fault(Law::residency, rank, "a {} reads {} from slot {}, which holds {}", step, describe(block), slot,
          held.block ? describe(*held.block) : "nothing");
    return false;
  }

  void collect_arrivals(int rank, std::vector<Delivery>& arrivals) {
    Round const round = program(rank).round(round_);
    for (Transfer const& send : round.sends) {
      Block const& block = plan_.block(send.block);
      if (!resident(rank, block, send.slot, plan_.block(send.whole), "send")) continue;
      Content travelling = block.tensor == Tensor::state ? take(rank, send.slot, block.slice) : Content{};
      if (Transfer const* const receive = receive_of(rank, send)) {
        arrivals.push_back({send.peer, *receive, std::move(travelling)});
      }
    }
  }

  /// Messages between two ranks match in order: the n-th send to a peer meets the peer's n-th receive from
  /// here.
  Transfer const* receive_of(int rank, Transfer const& send) const {
    std::ptrdiff_t before = 0;
    for (Transfer const& earlier : program(rank).round(round_).sends) {
      if (&earlier == &send) break;
      if (earlier.peer == send.peer) ++before;
    }
    for (Transfer const& receive : program(send.peer).round(round_).receives) {
      if (receive.peer == rank && before-- == 0) return &receive;
    }
    return nullptr;
  }

  void play(int rank, Fold const& fold) {
    Block const& q = plan_.block(fold.q);
    Block const& kv = plan_.block(fold.kv);
    if (!resident(rank, q, fold.q_slot, "fold") || !resident(rank, kv, fold.kv_slot, "fold")) return;
    if (!kv.heads.contains(q.heads)) {
      fault(Law::coverage, rank, "{} and {} are folded, but their heads differ", describe(q), describe(kv));
      return;
    }
    if (fold.state == fold.q_slot || fold.state == fold.kv_slot) {
      fault(Law::residency, rank, "a fold writes its state over an operand, slot {}", fold.state);
      return;
    }
    Content next{.block = state_of(q), .parts = {q.slice}, .folded = {}};
    if (fold.start == Start::carried) {
      if (!resident(rank, *next.block, fold.state, "fold")) return;
      next = take(rank, fold.state, q.slice);
    }
    next.folded.push_back(fold.kv);
    hold(rank, fold.state, std::move(next));
  }

  void play(int rank, Merge const& merge) {
    Block const& state = plan_.block(merge.state);
    if (!resident(rank, state, merge.from, "merge")) return;
    if (merge.from == merge.into) {
      fault(Law::residency, rank, "{} is merged into itself", describe(state));
      return;
    }
    Content next = take(rank, merge.from, state.slice);
    if (merge.start == Start::carried) {
      if (!resident(rank, state, merge.into, "merge")) return;
      auto const more = take(rank, merge.into, state.slice).folded;
      next.folded.insert(next.folded.end(), more.begin(), more.end());
    }
    hold(rank, merge.into, std::move(next));
  }

  void check_end(int rank) {
    check_homecoming(rank);
    for (Content const& left : contents_[static_cast<std::size_t>(rank)]) {
      if (left.block && left.block->tensor == Tensor::state) {
        fault(Law::homecoming, rank, "{} is left over at the end", describe(*left.block));
      }
    }
    auto const& largest = largest_[static_cast<std::size_t>(rank)];
    for (std::size_t slot = 0; slot < largest.size(); ++slot) {
      if (largest[slot] != program(rank).slots[slot]) {
        fault(Law::memory, rank, "slot {} has {} bytes, the largest block in it needs {}", slot,
              program(rank).slots[slot], largest[slot]);
      }
    }
  }

  /// The blocks that ended tile (the rank's rows) × (all heads) exactly.
  void check_homecoming(int rank) {
    std::vector<Block>& ended = ended_[static_cast<std::size_t>(rank)];
    std::ranges::sort(ended, {}, [](Block const& block) { return block.slice.begin; });
    double covered = 0.0;
    for (std::size_t i = 0; i < ended.size(); ++i) {
      Block const& block = ended[i];
      if (!owns(rank, block)) {
        fault(Law::homecoming, rank, "gets {}, whose rows it does not own", describe(block));
      }
      for (std::size_t j = i + 1; j < ended.size() && ended[j].slice.begin < block.slice.end; ++j) {
        bool const heads_meet =
            std::max(ended[j].heads.begin, block.heads.begin) < std::min(ended[j].heads.end, block.heads.end);
        if (heads_meet && !intersect(ended[j].slice, block.slice).empty()) {
          fault(Law::homecoming, rank, "{} is finished twice", describe(block));
        }
      }
      covered += static_cast<double>(block.slice.size()) * static_cast<double>(block.heads.size());
    }
    auto const owned =
        static_cast<double>(plan_.layouts.q.tokens(rank)) * static_cast<double>(plan_.problem.shape.kv_heads);
    if (covered < owned) fault(Law::homecoming, rank, "finishes {} of its {} row-heads", covered, owned);
  }

  void play(int rank, Finish const& finish) {
    Block const& state = plan_.block(finish.state);
    Block const& out = plan_.block(finish.out);
    if (out.slice != state.slice || !(out.heads == state.heads)) {
      fault(Law::homecoming, rank, "{} is finished as {}", describe(state), describe(out));
      return;
    }
    check_coverage(rank, finish);
    if (finish.into == at_rest) {
      ended_[static_cast<std::size_t>(rank)].push_back(out);
    } else {
      hold(rank, finish.into, {.block = out, .parts = {out.slice}, .folded = {}});
    }
  }

  /// The key/value blocks in a final state are disjoint where the mask keeps, and hold all that the mask
  /// keeps.
  void check_coverage(int rank, Finish const& finish) {
    Block const& state = plan_.block(finish.state);
    Mask const& mask = plan_.problem.mask;
    std::vector<BlockId> folded;
    if (finish.from != at_rest) {
      if (!resident(rank, state, finish.from, "finish")) return;
      folded = take(rank, finish.from, state.slice).folded;
    }
    std::ranges::sort(folded, {}, [&](BlockId id) { return plan_.block(id).slice.begin; });
    Index kept = 0;
    Slice reach{};  // the keys seen so far end here
    for (BlockId const id : folded) {
      Slice const keys = plan_.block(id).slice;
      Slice const again = intersect(reach, keys);
      if (mask.area(state.slice, again) > 0) {
        fault(Law::coverage, rank, "{} has keys [{}, {}) folded in twice", describe(state), again.begin,
              again.end);
        return;
      }
      kept += mask.area(state.slice, keys);
      reach = {0, std::max(reach.end, keys.end)};
    }
    Index const wanted = mask.area(state.slice, {0, mask.kv_tokens()});
    if (kept != wanted) {
      fault(Law::coverage, rank, "{} has {} of the {} (query, key) pairs that the mask keeps",
            describe(state), kept, wanted);
    }
  }

  Plan const& plan_;
  Faults faults_;
  std::size_t round_ = 0;
  std::vector<std::vector<Content>> contents_;       ///< [rank][slot]
  std::vector<std::vector<Block>> ended_;            ///< [rank]: what arrived in the caller's output
  std::vector<std::vector<std::uint64_t>> largest_;  ///< [rank][slot]: bytes of the largest block held
};

}  // namespace

std::string_view name(Law law) {
  constexpr std::array<std::string_view, 5> names = {"coverage", "residency", "matching", "homecoming",
                                                     "memory"};
  return names[static_cast<std::size_t>(law)];
}

std::vector<Violation> verify(Plan const& plan, std::size_t most) {
  return Verifier(plan, most).run();
}

void require_verified(Plan const& plan) {
  auto const violations = verify(plan);
  if (violations.empty()) return;
  std::string message = fmt::format("the plan of strategy '{}' is not right:", plan.strategy);
  for (Violation const& violation : violations) {
    message += fmt::format("\n  {}: {}", name(violation.law), violation.message);
  }
  throw InvalidPlan(message);
}

}  // namespace plait
