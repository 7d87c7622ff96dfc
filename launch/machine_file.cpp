#include "machine_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string_view>

#include "file_error.hpp"
#include "plait/mask.hpp"

namespace plait {
namespace {

constexpr int format_version = 1;
/// Of a link; files from before it was measured have none, and mean 0.
constexpr std::string_view buffer_bytes = "buffer_bytes";

/// Visits every number of a machine by its name in the file.
template <class Target, class Visit>
void for_each_number(Target& machine, Visit&& visit) {
  visit("ranks_per_node", machine.ranks_per_node);
  visit("flops_per_second", machine.flops_per_second);
  visit("fold_seconds", machine.fold_seconds);
  visit("units", machine.units);
  visit("tile_rows", machine.tile_rows);
  visit("edge_keys", machine.edge_keys);
  visit("memory_bytes_per_second", machine.memory_bytes_per_second);
  visit("key_bytes_per_second", machine.key_bytes_per_second);
  visit("merge_bytes_per_second", machine.merge_bytes_per_second);
  visit("step_seconds", machine.step_seconds);
  for (auto const& [name, link] : {std::pair{"node", &machine.node}, {"network", &machine.network}}) {
    std::string const prefix = std::string(name) + '.';
    visit(prefix + "latency_seconds", link->latency_seconds);
    visit(prefix + "bytes_per_second", link->bytes_per_second);
    visit(prefix + "message_seconds", link->message_seconds);
    visit(prefix + std::string(buffer_bytes), link->buffer_bytes);
  }
  visit("port_bytes_per_second", machine.port_bytes_per_second);
  visit("host_seconds_per_byte", machine.host_seconds_per_byte);
  visit("round_seconds", machine.round_seconds);
  visit("round_share", machine.round_share);
  visit("link_share_computing", machine.link_share_computing);
  visit("link_share_exposed", machine.link_share_exposed);
  visit("crowd_ranks", machine.crowd_ranks);
  visit("alone_speedup", machine.alone_speedup);
}

Machine read_machine(std::string const& path, Json const& json) {
  auto const fail = [&](std::string const& message) {
    throw FileError(fmt::format("{}: {}", path, message));
  };
  if (!json.is_object()) fail("not a machine: the file must hold one JSON object");
  if (json.value("plait_machine", 0) != format_version) {
    fail(fmt::format("not a machine: \"plait_machine\" must be {}", format_version));
  }
  Machine machine;
  machine.name = json.value("name", path);
  machine.sources = json.value("sources", "");
  std::size_t known = 3;  // version, name, sources
  for_each_number(machine, [&](std::string const& name, auto& number) {
    auto const found = json.find(name);
    if (found == json.end() && name.ends_with(buffer_bytes)) return;
    if (found == json.end()) fail(fmt::format("\"{}\" is missing", name));
    if (!found->is_number()) fail(fmt::format("\"{}\" is {}, it must be a number", name, found->dump()));
    found->get_to(number);
    ++known;
  });
  if (json.size() > known) {
    for (auto const& [key, value] : json.items()) {
      bool mine = key == "plait_machine" || key == "name" || key == "sources";
      for_each_number(machine, [&](std::string const& name, auto const&) { mine = mine || name == key; });
      if (!mine) fail(fmt::format("\"{}\" is not a number of a machine", key));
    }
  }
  try {
    validate(machine);
  } catch (InvalidProblem const& error) {
    throw InvalidProblem(fmt::format("{}: {}", path, error.what()));
  }
  return machine;
}

}  // namespace

Json machine_json(Machine const& machine) {
  Json json = {{"plait_machine", format_version}, {"name", machine.name}, {"sources", machine.sources}};
  for_each_number(machine, [&](std::string const& name, auto const& number) { json[name] = number; });
  return json;
}

Machine load_machine(std::string const& name) {
  if (std::ranges::find(machines(), name, &Machine::name) != machines().end()) return machine(name);
  std::ifstream file(name);
  if (!file) {
    try {
      return machine(name);  // throws, naming those that exist
    } catch (InvalidProblem const& error) {
      throw InvalidProblem(fmt::format("{}, or a file", error.what()));
    }
  }
  try {
    return read_machine(name, Json::parse(file));
  } catch (Json::exception const& error) {
    throw FileError(fmt::format("{}: {}", name, error.what()));
  } catch (std::ios_base::failure const&) {
    throw FileError(fmt::format("{}: can't be read; is it a regular file?", name));
  }
}

}  // namespace plait
