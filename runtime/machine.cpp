#include "plait/machine.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "plait/mask.hpp"

namespace plait {
namespace {

/// Folds: bench/results/h100.md and two-gpus.md (bf16, D 128, 64k tokens and more), whose times these numbers
/// give back within 8%: 103 ms alone, 57 to 61 ms on two. An H200 is the same chip at the same clocks, with
/// faster memory. A launch with its first loads takes 10 µs and more (kernel-log.md). Memory is taken at the
/// share of its nominal rate that copies, merges and finishes reach on the H100, 3.0 of 3.35 TB/s. NVLink:
/// exchanges by copy engines between four H100s, 392 to 420 GB/s each way of 450, an empty one 13 to 17 µs,
/// one with data 30 µs and 9 µs more for each further message; and what makes the times of 44 plans, measured
/// on one, two and four of them, nearest to these numbers' (bench/results/four-gpus.md). Between nodes: 400
/// Gb/s InfiniBand per GPU at 96% of nominal, by data sheet, and latencies assumed, for NCCL's rounds of
/// sends.
Machine hopper(std::string name, double nominal_bytes_per_second) {
  constexpr double share_of_nominal = 0.9;
  double const memory = share_of_nominal * nominal_bytes_per_second;
  return {
      .name = std::move(name),
      .sources =
          "folds and memory measured on H100s (bench/results/h100.md, two-gpus.md), memory in proportion to "
          "its nominal rate; NVLink measured between four H100s (four-gpus.md); InfiniBand from its data "
          "sheet, 400 Gb/s at 96% per GPU, its latencies assumed",
      .ranks_per_node = 8,
      .flops_per_second = 690e12,
      .fold_seconds = 12e-6,
      .units = 132,
      .tile_rows = 128,
      .memory_bytes_per_second = memory,
      .key_bytes_per_second = memory,
      .merge_bytes_per_second = memory,
      .step_seconds = 3e-6,
      .node = {.latency_seconds = 25e-6, .bytes_per_second = 400e9, .message_seconds = 5e-6},
      .network = {.latency_seconds = 30e-6, .bytes_per_second = 48e9, .message_seconds = 2e-6},
      .port_bytes_per_second = 8 * 48e9};
}

std::array<Machine, 3> const& table() {
  static std::array<Machine, 3> const machines = {Machine{}, hopper("h100", 3.35e12), hopper("h200", 4.8e12)};
  return machines;
}

}  // namespace

std::span<Machine const> machines() {
  return table();
}

Machine machine(std::string_view name) {
  std::string names;
  for (Machine const& known : table()) {
    if (known.name == name) return known;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  }
  throw InvalidProblem(fmt::format("machine '{}': must be one of {}", name, names));
}

void validate(Machine const& machine) {
  auto const require = [&](std::string_view what, double value, bool zero_too) {
    bool const fits = std::isfinite(value) && (value > 0 || (zero_too && value == 0));
    if (fits) return;
    throw InvalidProblem(fmt::format("machine '{}': {} is {}, it must be {}", machine.name, what, value,
                                     zero_too ? "0 or more" : "more than 0"));
  };
  require("ranks_per_node", machine.ranks_per_node, false);
  require("flops_per_second", machine.flops_per_second, false);
  require("fold_seconds", machine.fold_seconds, true);
  require("units", machine.units, false);
  require("tile_rows", machine.tile_rows, false);
  require("edge_keys", machine.edge_keys, true);
  require("memory_bytes_per_second", machine.memory_bytes_per_second, false);
  require("key_bytes_per_second", machine.key_bytes_per_second, false);
  require("merge_bytes_per_second", machine.merge_bytes_per_second, false);
  require("step_seconds", machine.step_seconds, true);
  for (auto const& [name, link] :
       {std::pair<std::string, Link const&>{"node", machine.node}, {"network", machine.network}}) {
    require(name + ".latency_seconds", link.latency_seconds, true);
    require(name + ".bytes_per_second", link.bytes_per_second, false);
    require(name + ".message_seconds", link.message_seconds, true);
    require(name + ".buffer_bytes", link.buffer_bytes, true);
  }
  require("port_bytes_per_second", machine.port_bytes_per_second, true);
  require("host_seconds_per_byte", machine.host_seconds_per_byte, true);
  require("round_seconds", machine.round_seconds, true);
  require("round_share", machine.round_share, true);
  for (auto const& [name, share] : {std::pair("link_share_computing", machine.link_share_computing),
                                    {"link_share_exposed", machine.link_share_exposed}}) {
    require(name, share, false);
    if (share > 1) {
      throw InvalidProblem(
          fmt::format("machine '{}': {} is {}, it must be 1 or less", machine.name, name, share));
    }
  }
  require("crowd_ranks", machine.crowd_ranks, false);
  require("alone_speedup", machine.alone_speedup, false);
}

}  // namespace plait
