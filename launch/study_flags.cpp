#include "study_flags.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "exit_code.hpp"
#include "mask_flags.hpp"
#include "plait/lists.hpp"
#include "plait/strategy.hpp"
#include "size.hpp"

namespace plait {
namespace {

constexpr int default_repeat = 5;
constexpr Index most_ranks = 65536;

/// The items of "a,b,c". @throws UsageError if there is none, or an empty one
std::vector<std::string> items(std::string_view flag, std::string_view list) {
  std::vector<std::string> found;
  std::string_view rest = list;
  while (true) {
    std::size_t const comma = rest.find(',');
    found.emplace_back(rest.substr(0, comma));
    if (found.back().empty()) {
      throw UsageError(fmt::format("{} '{}': expected items with commas in between", flag, list));
    }
    if (comma == std::string_view::npos) return found;
    rest.remove_prefix(comma + 1);
  }
}

int parse_rank_count(std::string_view text) {
  return static_cast<int>(parse_size("--ranks", text, 1, most_ranks));
}

/// As --strategy takes it, so that both accept the same names.
std::string checked_strategy(std::string_view flag, std::string const& name) {
  po::options_description flags;
  add_plan_flags(flags);
  try {
    return parse_strategy(CommandLine({"--strategy", name}, flags));
  } catch (UsageError const& error) {
    std::string message = error.what();
    constexpr std::string_view single = "--strategy";
    if (message.starts_with(single)) message.replace(0, single.size(), flag);
    throw UsageError(message);
  }
}

std::vector<std::string> parse_strategies(CommandLine const& line) {
  std::vector<std::string> names;
  auto const list = line.get("strategies");
  if (!list) {
    for (Strategy const& known : strategies()) names.emplace_back(known.name);
    return names;
  }
  for (std::string const& name : items("--strategies", *list)) {
    if (std::ranges::find(names, name) == names.end())
      names.push_back(checked_strategy("--strategies", name));
  }
  return names;
}

TimelinePoint parse_timeline(CommandLine const& line) {
  auto const value = line.get("timeline");
  if (!value) return {};
  if (!line.has("plots")) throw UsageError("--timeline: needs --plots DIR beside it");
  std::size_t const at = value->find('@');
  if (at == std::string::npos) {
    throw UsageError(fmt::format("--timeline {}: expected STRATEGY@RANKS, such as ring@8", *value));
  }
  return {.strategy = checked_strategy("--timeline", value->substr(0, at)),
          .ranks = static_cast<int>(parse_size("--timeline", value->substr(at + 1), 1, most_ranks))};
}

/// Batch, dimensions and dtype as every subcommand reads them; heads and tokens are the study's own.
Shape parse_common_shape(CommandLine const& line) {
  Words words = {"--tokens", "0"};
  for (std::string const flag : {"batch", "dim", "value-dim", "dtype"}) {
    if (auto const value = line.get(flag)) words.insert(words.end(), {"--" + flag, *value});
  }
  return parse_shape(CommandLine(words, shape_flags()));
}

void parse_tokens(CommandLine const& line, StudyOptions& options) {
  if (line.has("tokens") == line.has("tokens-per-rank")) {
    throw UsageError(
        "expected one of --tokens N (strong scaling: as many in all) and --tokens-per-rank N (weak scaling: "
        "as "
        "many on each rank)");
  }
  options.scaling = line.has("tokens") ? Scaling::strong : Scaling::weak;
  std::string const flag = line.has("tokens") ? "tokens" : "tokens-per-rank";
  options.tokens = parse_size("--" + flag, line.require(flag), 1);
  if (options.scaling == Scaling::weak) {
    for (std::string const fixed : {"kv-tokens", "block-mask", "bands"}) {
      if (line.has(fixed)) {
        throw UsageError(fmt::format(
            "--{}: holds for one number of tokens, and with --tokens-per-rank they grow with the ranks",
            fixed));
      }
    }
  }
  options.shape.q_tokens = options.tokens;
  auto const keys = line.get("kv-tokens");
  options.shape.kv_tokens = keys ? parse_size("--kv-tokens", *keys) : options.tokens;
}

/// The mask flags but for --documents.
Words mask_words_without_documents(CommandLine const& line) {
  Words words;
  if (line.has("causal")) words.emplace_back("--causal");
  if (auto const value = line.get("window")) words.insert(words.end(), {"--window", *value});
  return words;
}

/// The documents of one rank's tokens, once for each rank.
Mask repeated_documents(std::string const& documents, Index tokens, int ranks) {
  Mask const one = parse_mask(CommandLine({"--documents", documents}, mask_flags()), tokens, tokens);
  std::vector<Band> bands;
  for (Index rank = 0; rank < ranks; ++rank) {
    Index const offset = rank * tokens;
    for (Band band : one.bands()) {
      band.q = {band.q.begin + offset, band.q.end + offset};
      band.kv = {band.kv.begin + offset, band.kv.end + offset};
      bands.push_back(band);
    }
  }
  return Mask::from_bands(tokens * ranks, tokens * ranks, std::move(bands));
}

}  // namespace

std::string_view name(Scaling scaling) {
  return scaling == Scaling::strong ? "strong" : "weak";
}

po::options_description study_flags() {
  po::options_description flags;
  po::options_description problem("Problem (sizes take K, M, G: 2^10, 2^20, 2^30)");
  problem.add_options()("tokens", text("N"), "strong scaling: query tokens in all")(
      "tokens-per-rank", text("N"), "weak scaling: query and key/value tokens of each rank")(
      "kv-tokens", text("N"), "key/value tokens, with --tokens (default: as many)")(
      "heads", text("Q:KV,..."), "query over key/value heads, one or more pairs (default 1:1)")(
      "batch", text("B"), "batch entries (default 1)")("dim", text("D"),
                                                       "width of a query or key head, 1 to 512 (default 64)")(
      "value-dim", text("D"), "width of a value head, 1 to 512 (default: --dim)")(
      "dtype", text("TYPE"), "f32, f16 or bf16 (default bf16)");
  po::options_description study("Study");
  study.add_options()("ranks", text("P,P..P,..."),
                      "rank counts: 1,2,3 or 8..4096, which doubles; required. Those that mpirun started are "
                      "measured on its first ranks, all others simulated")(
      "strategies", text("NAME,..."), "as --strategy of attend takes them (default: all that there are)")(
      "layout", text("NAME"), "as --layout of attend takes it (default auto)")(
      "scale", text("X"), "multiplies q.k before the softmax (default 1/sqrt(dim))");
  po::options_description run("Measured points (medians of the runs after a warm-up)");
  add_run_flags(run, default_repeat);
  po::options_description output("Output");
  output.add_options()("csv", text("FILE"), "the rows, comma-separated")(
      "json", text("FILE|-"), "the rows as JSON; with - stdout carries nothing else")(
      "plots", text("DIR"), "pictures (SVG): time, efficiency, bytes per rank, exposed share, a timeline")(
      "timeline", text("STRATEGY@RANKS"),
      "the point whose timeline is drawn (default: the fastest of the fewest ranks above one)")("help,h",
                                                                                                "this text");
  flags.add(problem).add(mask_flags()).add(study).add(machine_flags()).add(run).add(output);
  return flags;
}

StudyOptions parse_study(Words const& words) {
  CommandLine const line(words, study_flags());
  StudyOptions options{.line = line,
                       .shape = parse_common_shape(line),
                       .heads = parse_heads(line.get("heads", "1:1")),
                       .ranks = parse_ranks(line.require("ranks")),
                       .strategies = parse_strategies(line),
                       .layout = parse_layout(line),
                       .machine = parse_machine(line),
                       .run = parse_run(line, default_repeat),
                       .csv = line.get("csv"),
                       .json = line.get("json"),
                       .plots = line.get("plots"),
                       .timeline = parse_timeline(line)};
  parse_tokens(line, options);
  TimelinePoint const& chosen = options.timeline;
  if (chosen.ranks > 0 &&
      (std::ranges::find(options.ranks, chosen.ranks) == options.ranks.end() ||
       std::ranges::find(options.strategies, chosen.strategy) == options.strategies.end())) {
    throw UsageError(fmt::format("--timeline {}@{}: expected one of the study's strategies and rank counts",
                                 chosen.strategy, chosen.ranks));
  }
  // What is wrong with the problem shows before anything is measured.
  (void)study_problem(options, options.heads.front(), options.ranks.front());
  return options;
}

Problem study_problem(StudyOptions const& options, HeadPair heads, int ranks) {
  Shape shape = options.shape;
  shape.q_heads = heads.q;
  shape.kv_heads = heads.kv;
  bool const weak = options.scaling == Scaling::weak;
  if (weak && __builtin_mul_overflow(options.tokens, Index{ranks}, &shape.q_tokens)) {
    throw UsageError(fmt::format("--tokens-per-rank {}: too many on {} ranks", options.tokens, ranks));
  }
  if (weak) shape.kv_tokens = shape.q_tokens;
  auto const documents = options.line.get("documents");
  Mask mask = weak && documents
                  ? parse_mask(CommandLine(mask_words_without_documents(options.line), mask_flags()),
                               shape.q_tokens, shape.kv_tokens)
                        .intersect(repeated_documents(*documents, options.tokens, ranks))
                  : parse_mask(options.line, shape.q_tokens, shape.kv_tokens);
  auto const scale = options.line.get("scale");
  Problem problem{.shape = shape,
                  .mask = std::move(mask),
                  .scale = scale ? parse_real("--scale", *scale) : default_scale(shape)};
  validate(problem);
  return problem;
}

std::string mask_name(CommandLine const& line) {
  std::string words;
  auto const add = [&](std::string const& word) { words += (words.empty() ? "" : " + ") + word; };
  if (line.has("causal")) add("causal");
  if (auto const value = line.get("window")) add("window " + *value);
  if (auto const value = line.get("documents")) {
    constexpr std::size_t most_shown = 24;
    add("documents " + (value->size() > most_shown ? value->substr(0, most_shown) + "…" : *value));
  }
  if (auto const value = line.get("block-mask")) add("block mask " + *value);
  if (auto const value = line.get("bands")) add("bands " + *value);
  return words.empty() ? "full" : words;
}

std::vector<int> parse_ranks(std::string_view list) {
  std::vector<int> ranks;
  for (std::string const& item : items("--ranks", list)) {
    std::size_t const dots = item.find("..");
    int const first = parse_rank_count(item.substr(0, dots));
    int const last = dots == std::string::npos ? first : parse_rank_count(item.substr(dots + 2));
    if (last < first) {
      throw UsageError(fmt::format("--ranks {}: a range goes upwards, by doubling, such as 8..64", item));
    }
    for (Index count = first; count <= last; count *= 2) ranks.push_back(static_cast<int>(count));
  }
  return ascending(std::move(ranks));
}

std::vector<HeadPair> parse_heads(std::string_view list) {
  std::vector<HeadPair> pairs;
  for (std::string const& item : items("--heads", list)) {
    HeadPair const pair = parse_head_pair(item);
    if (std::ranges::find(pairs, pair) == pairs.end()) pairs.push_back(pair);
  }
  return pairs;
}

}  // namespace plait
