#include "verify_form.hpp"

namespace plait {
namespace {

/// The steps of one rank's program, whatever their rounds.
class ProgramForm {
 public:
  ProgramForm(Plan const& plan, int rank, Faults& faults)
      : plan_(plan), rank_(rank), program_(plan.programs[static_cast<std::size_t>(rank)]), faults_(faults) {}

  void check() {
    rounds();
    transfers(program_.sends, true);
    transfers(program_.receives, false);
    for (Fold const& fold : program_.folds) {
      operand(fold.q, Tensor::q, fold.q_slot, true);
      operand(fold.kv, Tensor::kv, fold.kv_slot, true);
      operand(fold.q, Tensor::q, fold.state, false);
    }
    for (Merge const& merge : program_.merges) {
      operand(merge.state, Tensor::state, merge.from, false);
      operand(merge.state, Tensor::state, merge.into, false);
    }
    for (Finish const& finish : program_.finishes) {
      operand(finish.state, Tensor::state, finish.from, true);
      operand(finish.out, Tensor::out, finish.into, true);
    }
    for (Reduction const& reduction : program_.reductions) {
      operand(reduction.state, Tensor::state, reduction.from, true);
      operand(reduction.state, Tensor::state, reduction.into, true);
    }
  }

 private:
  template <class... Values>
  void fault(Law law, std::string_view message, Values const&... values) {
    faults_.add(law, rank_, 0, message, values...);
  }

  void rounds() {
    if (program_.rounds() != plan_.rounds()) {
      fault(Law::matching, "{} rounds, rank 0 has {}", program_.rounds(), plan_.rounds());
    }
    Program::Cut const end = program_.ends.empty() ? Program::Cut{} : program_.ends.back();
    bool const cut_right = end.sends == program_.sends.size() && end.receives == program_.receives.size() &&
                           end.folds == program_.folds.size() && end.merges == program_.merges.size() &&
                           end.finishes == program_.finishes.size() &&
                           end.reductions == program_.reductions.size();
    if (!cut_right) fault(Law::matching, "steps lie outside the rounds");
  }

  void transfers(std::vector<Transfer> const& list, bool sends) {
    for (Transfer const& transfer : list) {
      if (transfer.peer < 0 || transfer.peer >= plan_.ranks()) {
        fault(Law::matching, "a transfer with rank {}", transfer.peer);
      }
      Tensor const tensor = exists(transfer.block) ? plan_.block(transfer.block).tensor : Tensor::q;
      bool const may_rest = sends ? tensor == Tensor::q || tensor == Tensor::kv : tensor == Tensor::out;
      operand(transfer.block, tensor, transfer.slot, may_rest);
      operand(transfer.whole, tensor, transfer.slot, may_rest);
    }
  }

  void operand(BlockId id, Tensor tensor, SlotId slot, bool may_rest) {
    bool const placed = (may_rest && slot == at_rest) ||
                        (slot >= 0 && static_cast<std::size_t>(slot) < program_.slots.size());
    if (exists(id) && plan_.block(id).tensor == tensor && placed) return;
    fault(Law::residency, "block {} in slot {} is not a {} block in a slot of the rank", id, slot,
          name(tensor));
  }

  [[nodiscard]] bool exists(BlockId id) const {
    return id >= 0 && static_cast<std::size_t>(id) < plan_.blocks.size();
  }

  Plan const& plan_;
  int rank_;
  Program const& program_;
  Faults& faults_;
};

}  // namespace

bool well_formed(Plan const& plan, Faults& faults) {
  if (plan.ranks() != plan.layouts.q.ranks()) {
    faults.add(Law::homecoming, 0, 0, "a program for every rank is needed");
  }
  for (int rank = 0; rank < plan.ranks(); ++rank) ProgramForm(plan, rank, faults).check();
  return faults.none();
}

}  // namespace plait
