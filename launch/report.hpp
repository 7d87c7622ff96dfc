// What people and programs are told: tables and sentences, and the same facts as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "plait/planner.hpp"
#include "plait/volume.hpp"

namespace plait {

using Json = nlohmann::ordered_json;

/// Columns padded to their widest cell, numbers to the right; the first row is the heading.
[[nodiscard]] std::string format_table(std::vector<std::vector<std::string>> const& rows);

/// "2048 queries × 2048 keys, 8 query over 2 key/value heads, …".
[[nodiscard]] std::string describe(Problem const& problem);

/// The chosen plan in words: what the strategy does, layout, rounds, what travels, bytes, memory, balance.
/// Of a plan that was not written out, the bytes and memory are those of the sampled ranks.
[[nodiscard]] std::string describe(Choice const& choice, Volume const& volume);

/// All that was considered, and why others were not taken.
[[nodiscard]] std::string candidate_table(std::vector<Candidate> const& candidates,
                                          std::string const& strategy, std::string const& layout);

[[nodiscard]] Json shape_json(Shape const& shape);
/// Those that were given up have null for what was not found out, and `least_seconds`, which they take at
/// least.
[[nodiscard]] Json candidates_json(std::vector<Candidate> const& candidates);

/// To FILE, or to stdout if it is "-". @throws FileError
void write_json(std::string const& target, Json const& json);

}  // namespace plait
