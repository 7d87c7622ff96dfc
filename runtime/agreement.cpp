#include "agreement.hpp"

#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "plait/comm_error.hpp"
#include "plait/version.hpp"

namespace plait {
namespace {

/// A digest of values without padding, fed one after the other, or some at once, which is faster.
class Digest {
 public:
  template <class... Values>
  Digest& add(Values... values) {
    static_assert(((std::is_integral_v<Values> || std::is_enum_v<Values>)&&...));
    std::array const wide = {static_cast<std::int64_t>(values)...};
    XXH3_64bits_update(state_.get(), wide.data(), sizeof wide);
    return *this;
  }
  Digest& add(Slice slice) { return add(slice.begin, slice.end); }
  Digest& add(HeadRange heads) { return add(heads.begin, heads.end); }
  [[nodiscard]] std::string text() const { return fmt::format("{:016x}", XXH3_64bits_digest(state_.get())); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  static XXH3_state_t* fresh() {
    XXH3_state_t* const state = XXH3_createState();
    if (state == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(state);
    return state;
  }
  std::unique_ptr<XXH3_state_t, Free> state_{fresh()};
};

std::string describe(Mask const& mask) {
  Digest digest;
  for (Band const& band : mask.bands()) digest.add(band.q).add(band.kv).add(band.lo, band.hi);
  return fmt::format("{} bands, {} pairs kept, digest {}", mask.bands().size(), mask.area(), digest.text());
}

std::string describe(Layout const& layout) {
  Digest digest;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    digest.add(rank);
    for (Slice const slice : layout.slices(rank)) digest.add(slice);
  }
  return fmt::format("{} tokens over {} ranks, digest {}", layout.tokens(), layout.ranks(), digest.text());
}

void add(Digest& digest, Program const& program) {
  for (auto const* transfers : {&program.sends, &program.receives}) {
    for (Transfer const& transfer : *transfers)
      digest.add(transfer.peer, transfer.block, transfer.slot, transfer.whole);
  }
  for (Fold const& fold : program.folds) {
    digest.add(fold.q, fold.q_slot, fold.kv, fold.kv_slot, fold.state, fold.start);
  }
  for (Merge const& merge : program.merges) digest.add(merge.state, merge.from, merge.into, merge.start);
  for (auto const& cut : program.ends)
    digest.add(cut.sends, cut.receives, cut.folds, cut.merges, cut.finishes, cut.reductions);
  for (Finish const& finish : program.finishes)
    digest.add(finish.state, finish.from, finish.out, finish.into);
  for (Reduction const& reduction : program.reductions)
    digest.add(reduction.state, reduction.from, reduction.into);
  for (std::uint64_t const slot : program.slots) digest.add(slot);
}

std::string describe_steps(Plan const& plan) {
  Digest digest;
  for (Block const& block : plan.blocks)
    digest.add(block.tensor).add(block.slice).add(block.heads).add(block.home);
  for (Program const& program : plan.programs) add(digest, program);
  return fmt::format("{} rounds, {} blocks, digest {}", plan.rounds(), plan.blocks.size(), digest.text());
}

/// One line per thing that all ranks must have alike: "name: what this rank has".
std::string describe_run(Plan const& plan, AttentionOptions const& options) {
  Shape const& shape = plan.problem.shape;
  return fmt::format(
      "version: {}\n"
      "queries: batch {}, {} tokens, {} heads, head dimension {}\n"
      "keys and values: {} tokens, {} heads, value dimension {}\n"
      "element type: {}\n"
      "scale: {}\n"
      "mask: {}\n"
      "strategy: {}\n"
      "query layout: {}\n"
      "key layout: {}\n"
      "plan: {}\n"
      "device: {}\n"
      "transport: {}\n",
      version(), shape.batch, shape.q_tokens, shape.q_heads, shape.head_dim, shape.kv_tokens, shape.kv_heads,
      shape.value_dim, name(shape.dtype), plan.problem.scale, describe(plan.problem.mask), plan.strategy,
      describe(plan.layouts.q), describe(plan.layouts.kv), describe_steps(plan),
      options.device == DeviceKind::cuda ? "cuda" : "cpu", name(options.transport));
}

std::vector<std::string> lines(std::string const& text) {
  std::vector<std::string> found;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) found.push_back(line);
  return found;
}

/// "0-2, 5" for ascending ranks.
std::string rank_list(std::vector<int> const& ranks) {
  std::string list;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    list += fmt::format("{}{}", list.empty() ? "" : ", ", ranks[i]);
    if (last > i) list += fmt::format("-{}", ranks[last]);
    i = last;
  }
  return list;
}

}  // namespace

void agree(World const& world, Plan const& plan, AttentionOptions const& options) {
  std::string const mine = describe_run(plan, options);
  auto const gathered = world.all_gather(std::as_bytes(std::span(mine)), "the agreement on the plan");
  std::vector<std::vector<std::string>> texts;
  for (auto const& bytes : gathered) {
    texts.push_back(lines(std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size())));
  }
  std::string differences;
  std::size_t fields = 0;
  for (auto const& text : texts) fields = std::max(fields, text.size());
  for (std::size_t field = 0; field < fields; ++field) {
    std::map<std::string, std::vector<int>> holders;
    for (std::size_t rank = 0; rank < texts.size(); ++rank) {
      holders[field < texts[rank].size() ? texts[rank][field] : "nothing"].push_back(static_cast<int>(rank));
    }
    if (holders.size() == 1) continue;
    for (auto const& [text, ranks] : holders) {
      differences += fmt::format("\n  rank{} {}: {}", ranks.size() > 1 ? "s" : "", rank_list(ranks), text);
    }
  }
  if (!differences.empty()) throw Disagreement("the ranks were not started with the same run:" + differences);
}

}  // namespace plait
