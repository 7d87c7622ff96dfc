#include "explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>
#include <vector>

#include "plait/strategy.hpp"
#include "size.hpp"

namespace plait {
namespace {

struct Part {
  std::string_view name;
  double seconds;
};

std::array<Part, 5> parts(Spent const& spent) {
  return {Part{"folds", spent.fold},
          {"merges and finishes", spent.merge},
          {"transfers within nodes", spent.node},
          {"transfers between nodes", spent.network},
          {"latency", spent.latency}};
}

/// Those that were weighed to the end come first: of the others only a least is known.
std::pair<bool, double> order(Candidate const& candidate) {
  return {!candidate.weight, candidate.least_seconds};
}

/// The best candidate of each strategy that has one, or the most promising, in the order of their times.
std::vector<Candidate const*> best_of_each(std::vector<Candidate> const& candidates) {
  std::vector<Candidate const*> best;
  for (Candidate const& candidate : candidates) {
    if (!candidate.refused.empty()) continue;
    auto const same = std::ranges::find_if(best, [&](Candidate const* other) {
      return &strategy_of(other->strategy) == &strategy_of(candidate.strategy);
    });
    if (same == best.end()) {
      best.push_back(&candidate);
    } else if (order(candidate) < order(**same)) {
      *same = &candidate;
    }
  }
  std::ranges::stable_sort(best, {}, [](Candidate const* candidate) { return order(*candidate); });
  return best;
}

std::string row(Candidate const& candidate, double least) {
  std::string const behind =
      candidate.least_seconds > least
          ? fmt::format("{:.1f}% more than the fastest", 100 * (candidate.least_seconds / least - 1))
          : std::string("the fastest");
  bool const known = candidate.weight.has_value();
  return fmt::format("  {} ({} layout): {}{}, {}\n    {}.\n    {}\n", candidate.strategy, candidate.layout,
                     known ? "" : "at least ", format_seconds(candidate.least_seconds), behind,
                     strategy_of(candidate.strategy).summary,
                     known ? "its time goes to " + in_words(candidate.weight->critical) : "given up at that");
}

/// Which plan was faster, by how much, and why another was taken.
std::string in_words(Traded const& fastest, Choice const& choice, TieRule const& rule) {
  bool const memory = !rule.bytes_first && fastest.slots_bytes > fastest.taken_slots_bytes;
  std::string const more =
      memory ? fmt::format("needs {} of memory on a rank, not {}", format_bytes(fastest.slots_bytes),
                           format_bytes(fastest.taken_slots_bytes))
             : fmt::format("sends {}, not {}", format_bytes(fastest.bytes_max),
                           format_bytes(fastest.taken_bytes_max));
  return fmt::format("{} ({} layout) is faster by {:.2g}% ({}, not {}), but {}: {} ({} layout) is taken.\n",
                     fastest.strategy, fastest.layout, 100 * (choice.predicted_seconds / fastest.seconds - 1),
                     format_seconds(fastest.seconds), format_seconds(choice.predicted_seconds), more,
                     choice.plan.strategy, choice.layout);
}

}  // namespace

std::string in_words(Spent const& spent) {
  std::string words;
  for (Part const& part : parts(spent)) {
    double const share = spent.total() > 0 ? 100 * part.seconds / spent.total() : 0.0;
    if (share >= 0.05) words += fmt::format("{}{:.1f}% {}", words.empty() ? "" : ", ", share, part.name);
  }
  return words.empty() ? "nothing" : words;
}

std::string explain(Choice const& choice, Machine const& machine) {
  std::vector<Candidate const*> const best = best_of_each(choice.candidates);
  bool const complete = std::ranges::all_of(choice.candidates, [](Candidate const& candidate) {
    return candidate.weight || !candidate.refused.empty();
  });
  TieRule const rule = tie_rule(machine);
  std::string text = fmt::format(
      "How the plan was chosen. Each row of the table is a plan: who owns which tokens (layout), and who "
      "sends what and\n"
      "computes what in which round (strategy). Plans were written out and played through, round by round, "
      "on the\n"
      "machine '{}'{}; of those that end first, or within {:g}% of that, the one that {}\n"
      "is taken, and among equals the one that {}. \"Bytes, most\" is what the "
      "busiest rank sends;\n"
      "\"memory, most\" is what a rank needs beside its share of the tensors. A fold is one piece of "
      "attention "
      "on one rank;\n"
      "where time goes is read off the chain of steps that ends last.\n\n",
      machine.name, complete ? "" : ", up to where they were certain not to be taken", 100 * rule.share,
      rule.bytes_first ? "sends least" : "needs the least memory",
      rule.bytes_first ? "ends first" : "sends least");
  if (choice.traded) text += in_words(*choice.traded, choice, rule) + "\n";
  for (Candidate const* candidate : best) text += row(*candidate, best.front()->least_seconds);
  std::set<std::string> told;  // a strategy is refused for every layout alike
  for (Candidate const& candidate : choice.candidates) {
    if (!candidate.refused.empty() && told.insert(candidate.refused).second)
      text += fmt::format("  not possible: {}\n", candidate.refused);
  }
  return text;
}

}  // namespace plait
