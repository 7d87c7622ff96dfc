#include "problem_flags.hpp"

#include <fmt/format.h>

#include <array>

#include "exit_code.hpp"
#include "machine_file.hpp"
#include "mask_flags.hpp"
#include "plait/strategy.hpp"
#include "size.hpp"

namespace plait {
namespace {

constexpr Index most_heads = Index{1} << 20;

Index parse_count(std::string const& flag, std::string const& text) {
  return parse_size(flag, text, 1, most_heads);
}

/// @throws UsageError that begins with what was `given`
HeadPair require_divisor(HeadPair heads, std::string const& given) {
  if (heads.q % heads.kv == 0) return heads;
  throw UsageError(
      fmt::format("{}: {} key/value heads are no divisor of {} query heads", given, heads.kv, heads.q));
}

/// --heads alone, or with --kv-heads.
HeadPair parse_both_heads(CommandLine const& line) {
  std::string const heads = line.get("heads", "1");
  auto const kv = line.get("kv-heads");
  HeadPair const pair = parse_head_pair(heads);
  if (!kv) return pair;
  if (heads.find(':') != std::string::npos) {
    throw UsageError(
        fmt::format("--heads {} and --kv-heads {}: expected the key/value heads once", heads, *kv));
  }
  return require_divisor({pair.q, parse_count("--kv-heads", *kv)}, "--kv-heads " + *kv);
}

}  // namespace

HeadPair parse_head_pair(std::string const& pair) {
  std::size_t const colon = pair.find(':');
  Index const q = parse_count("--heads", pair.substr(0, colon));
  Index const kv = colon == std::string::npos ? q : parse_count("--heads", pair.substr(colon + 1));
  return require_divisor({q, kv}, "--heads " + pair);
}

po::options_description shape_flags() {
  po::options_description flags("Problem (sizes take K, M, G: 2^10, 2^20, 2^30)");
  auto add = flags.add_options();
  add("batch", text("B"), "batch entries (default 1)");
  add("tokens", text("N"), "query tokens; required");
  add("kv-tokens", text("N"), "key/value tokens (default: --tokens)");
  add("heads", text("Q[:KV]"), "query heads, over key/value heads, which divide them (default 1)");
  add("kv-heads", text("KV"), "key/value heads, if --heads is one number (default: --heads)");
  add("dim", text("D"), "width of a query or key head, 1 to 512 (default 64)");
  add("value-dim", text("D"), "width of a value head, 1 to 512 (default: --dim)");
  add("dtype", text("TYPE"), "f32, f16 or bf16 (default bf16)");
  return flags;
}

Shape parse_shape(CommandLine const& line) {
  constexpr std::array<std::string_view, 3> names = {"f32", "f16", "bf16"};
  constexpr std::array types = {DType::f32, DType::f16, DType::bf16};
  auto const size = [&](std::string const& flag, Index absent, Index least, Index most) {
    auto const value = line.get(flag);
    return value ? parse_size("--" + flag, *value, least, most) : absent;
  };
  constexpr Index most = std::numeric_limits<Index>::max();
  HeadPair const heads = parse_both_heads(line);
  Shape shape;
  shape.batch = size("batch", 1, 1, most);
  shape.q_tokens = parse_size("--tokens", line.require("tokens"));
  shape.kv_tokens = size("kv-tokens", shape.q_tokens, 0, most);
  shape.q_heads = heads.q;
  shape.kv_heads = heads.kv;
  shape.head_dim = size("dim", 64, 1, max_head_dim);
  shape.value_dim = size("value-dim", shape.head_dim, 1, max_head_dim);
  std::string const dtype = line.choose("dtype", "bf16", names);
  shape.dtype = types[static_cast<std::size_t>(std::ranges::find(names, dtype) - names.begin())];
  return shape;
}

Problem parse_problem(CommandLine const& line, Shape const& shape) {
  auto const scale = line.get("scale");
  Problem problem{.shape = shape,
                  .mask = parse_mask(line, shape.q_tokens, shape.kv_tokens),
                  .scale = scale ? parse_real("--scale", *scale) : default_scale(shape)};
  validate(problem);
  return problem;
}

void add_plan_flags(po::options_description& flags) {
  std::string strategy_help = "how attention is split over ranks (default auto: the least predicted time)";
  for (Strategy const& strategy : strategies()) {
    strategy_help += fmt::format("\n{}: {}", strategy.form, strategy.summary);
  }
  auto add = flags.add_options();
  add("strategy", text("auto|NAME"), strategy_help.c_str());
  add("layout", text("NAME"),
      "who owns which tokens: auto, contiguous, zigzag (even under a causal mask), balanced (even under any "
      "mask) or root (rank 0 all queries, for few of them; keys contiguous) (default auto)");
  add("reduce", text("p2p|native"),
      "how states of the same rows become one: by messages and merges, or in MPI's own reduce-scatter with "
      "the merge as its operator, which only plans of tree can do, between CPU ranks (default p2p)");
  add("scale", text("X"), "multiplies q.k before the softmax (default 1/sqrt(dim))");
}

Reduce parse_reduce(CommandLine const& line) {
  constexpr std::array<std::string_view, 2> names = {"p2p", "native"};
  return line.choose("reduce", "p2p", names) == "native" ? Reduce::native : Reduce::p2p;
}

std::string parse_strategy(CommandLine const& line) {
  std::string name = line.get("strategy", "auto");
  if (name == "auto") return name;
  try {
    (void)strategy_of(name);
  } catch (InvalidProblem const& error) {
    throw UsageError(fmt::format("--{}, or auto", error.what()));
  }
  return name;
}

std::string parse_layout(CommandLine const& line) {
  constexpr std::array<std::string_view, 5> names = {"auto", "contiguous", "zigzag", "balanced", "root"};
  return line.choose("layout", "auto", names);
}

po::options_description machine_flags() {
  std::string names;
  for (Machine const& known : machines()) names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  po::options_description flags("Machine that plans are weighed on");
  auto add = flags.add_options();
  add("machine", text("NAME|FILE"),
      fmt::format("{}, or a file that plait calibrate wrote (default {})", names, Machine{}.name).c_str());
  add("fold-rate", text("FLOP/S"), "instead of the machine's: speed of one rank's attention tiles");
  add("bandwidth", text("BYTES/S"), "of one rank's link between nodes, each way");
  add("latency", text("SECONDS"), "of one message between nodes");
  add("ranks-per-node", text("R"), "consecutive ranks that share a node");
  return flags;
}

Machine parse_machine(CommandLine const& line) {
  Machine machine = load_machine(line.get("machine", Machine{}.name));
  if (auto const value = line.get("fold-rate")) {
    machine.flops_per_second = parse_real("--fold-rate", *value, 0);
  }
  if (auto const value = line.get("bandwidth")) {
    machine.network.bytes_per_second = parse_real("--bandwidth", *value, 0);
  }
  if (auto const value = line.get("latency")) {
    machine.network.latency_seconds = parse_real("--latency", *value, 0);
  }
  if (auto const value = line.get("ranks-per-node")) {
    machine.ranks_per_node = static_cast<int>(parse_size("--ranks-per-node", *value, 1, 65536));
  }
  return machine;
}

}  // namespace plait
