// Machines to JSON and back, and what is said of files that are no machines.
#include "machine_file.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "exit_code.hpp"
#include "file_error.hpp"
#include "plait/mask.hpp"
#include "scratch.hpp"

namespace plait {
namespace {

using testing_scratch::Scratch;

std::string write(Scratch const& scratch, std::string const& text) {
  std::string const path = scratch / "machine.json";
  std::ofstream(path) << text;
  return path;
}

std::string write(Scratch const& scratch, Json const& json) {
  return write(scratch, json.dump(2));
}

/// What load_machine throws for `name`: an Error that holds each of `words`.
template <class Error>
void expect_refused(std::string const& name, std::vector<std::string> const& words) {
  try {
    (void)load_machine(name);
    ADD_FAILURE() << name << " was accepted";
  } catch (Error const& error) {
    for (std::string const& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << " in: " << error.what();
    }
  }
}

void expect_equal(Machine const& a, Machine const& b) {
  EXPECT_EQ(machine_json(a).dump(), machine_json(b).dump());
}

TEST(MachineFile, EveryMachineThatComesWithPlaitRoundTrips) {
  for (Machine const& known : machines()) {
    Scratch const scratch;
    Machine const read = load_machine(write(scratch, machine_json(known)));
    expect_equal(read, known);
    expect_equal(load_machine(known.name), known);
    EXPECT_EQ(read.node.bytes_per_second, known.node.bytes_per_second);
    EXPECT_EQ(read.network.latency_seconds, known.network.latency_seconds);
    EXPECT_EQ(read.sources, known.sources);
  }
}

TEST(MachineFile, NumbersKeepAllTheirDigits) {
  Machine machine;
  machine.name = "one \"third\"";
  machine.flops_per_second = 1e11 / 3;
  machine.ranks_per_node = 7;
  machine.host_seconds_per_byte = 1e-10 / 7;
  machine.network.message_seconds = 1e-6 / 11;
  machine.network.buffer_bytes = 1e7 / 3;
  Scratch const scratch;
  Machine const read = load_machine(write(scratch, machine_json(machine)));
  EXPECT_EQ(read.name, machine.name);
  EXPECT_EQ(read.flops_per_second, machine.flops_per_second);
  EXPECT_EQ(read.ranks_per_node, 7);
  EXPECT_EQ(read.host_seconds_per_byte, machine.host_seconds_per_byte);
  EXPECT_EQ(read.network.message_seconds, machine.network.message_seconds);
  EXPECT_EQ(read.network.buffer_bytes, machine.network.buffer_bytes);
}

/// Files from before links had them.
TEST(MachineFile, LinksWithoutBuffersHaveNone) {
  Machine machine;
  machine.node.buffer_bytes = 1e6;
  Json json = machine_json(machine);
  for (std::string const level : {"node", "network"}) json.erase(level + ".buffer_bytes");
  Scratch const scratch;
  Machine const read = load_machine(write(scratch, json));
  EXPECT_EQ(read.node.buffer_bytes, 0.0);
  EXPECT_EQ(read.network.buffer_bytes, 0.0);
  json["node.buffer_bytes"] = "much";
  std::string const path = write(scratch, json);
  expect_refused<FileError>(path, {path, "\"node.buffer_bytes\" is \"much\", it must be a number"});
}

TEST(MachineFile, EveryMissingNumberIsNamed) {
  Json const whole = machine_json({});
  for (auto const& [key, value] : whole.items()) {
    if (!value.is_number() || key == "plait_machine" || key.ends_with(".buffer_bytes")) continue;
    Json part = whole;
    part.erase(key);
    Scratch const scratch;
    std::string const path = write(scratch, part);
    expect_refused<FileError>(path, {path, "\"" + key + "\" is missing"});
  }
}

TEST(MachineFile, NumbersOfAnotherKindAreNamed) {
  Json json = machine_json({});
  json["network.latency_seconds"] = "20 µs";
  Scratch const scratch;
  std::string const path = write(scratch, json);
  expect_refused<FileError>(path, {path, "\"network.latency_seconds\" is \"20 µs\", it must be a number"});
}

TEST(MachineFile, UnknownKeysAreNamed) {
  Json json = machine_json({});
  json["flops_per_secnd"] = 1e12;
  Scratch const scratch;
  std::string const path = write(scratch, json);
  expect_refused<FileError>(path, {path, "\"flops_per_secnd\" is not a number of a machine"});
}

TEST(MachineFile, OtherVersionsAreRefused) {
  Scratch const scratch;
  Json json = machine_json({});
  json["plait_machine"] = 2;
  std::string const path = write(scratch, json);
  expect_refused<FileError>(path, {path, "\"plait_machine\" must be 1"});
  json.erase("plait_machine");
  write(scratch, json);
  expect_refused<FileError>(path, {path, "\"plait_machine\" must be 1"});
}

TEST(MachineFile, TextThatIsNoMachineIsRefused) {
  Scratch const scratch;
  for (std::string const text : {"", "fast", "{\"plait_machine\": 1", "{\"plait_machine\": 1}}"}) {
    std::string const path = write(scratch, text);
    expect_refused<FileError>(path, {path});
  }
  for (std::string const text : {"[]", "1", "null", "\"h100\""}) {
    std::string const path = write(scratch, text);
    expect_refused<FileError>(path, {path, "the file must hold one JSON object"});
  }
  // Of another kind than the format says.
  for (std::string const text : {"{\"plait_machine\": \"1\"}", "{\"plait_machine\": {}}"}) {
    std::string const path = write(scratch, text);
    expect_refused<FileError>(path, {path});
  }
  Json json = machine_json({});
  json["name"] = 7;
  std::string const path = write(scratch, json);
  expect_refused<FileError>(path, {path});
}

TEST(MachineFile, NumbersThatCannotBeAreNamed) {
  for (auto const& [key, value] : {std::pair{"flops_per_second", -1.0},
                                   {"memory_bytes_per_second", 0.0},
                                   {"node.bytes_per_second", -5.0},
                                   {"network.bytes_per_second", 0.0},
                                   {"network.latency_seconds", -1e-6},
                                   {"port_bytes_per_second", -1.0},
                                   {"host_seconds_per_byte", -1e-9},
                                   {"ranks_per_node", 0.0},
                                   {"units", -3.0}}) {
    Json json = machine_json({});
    json["name"] = "broken";
    json[key] = value;
    Scratch const scratch;
    std::string const path = write(scratch, json);
    expect_refused<InvalidProblem>(path, {path, key});
  }
}

TEST(MachineFile, MissingFilesNameTheMachinesThatExist) {
  expect_refused<InvalidProblem>("h300", {"h300", "flat, h100, h200", "or a file"});
  expect_refused<InvalidProblem>("/nowhere/machine.json", {"/nowhere/machine.json", "or a file"});
  Scratch const scratch;
  expect_refused<FileError>(scratch.path(), {scratch.path()});  // a directory
}

}  // namespace
}  // namespace plait
