// A timeline as Chrome trace JSON, which ui.perfetto.dev opens.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "plait/plan.hpp"
#include "plait/timeline.hpp"

namespace plait {

/// {"traceEvents": […]}: complete events ("X", µs with three decimals), pid = rank, one row (tid) each for
/// compute, wait, send and receive; events that overlap within a kind go to further rows ("send 2"), so that
/// events of one row never overlap. Arguments: round, block, peer, bytes.
/// @param rank_names  of the processes, in rank order: "rank 0 (node7)"
[[nodiscard]] std::string trace_json(std::span<Event const> timeline, Plan const& plan,
                                     std::vector<std::string> const& rank_names);

/// Writes `content` beside `path`, then renames, so that the file appears whole or not at all.
/// @throws FileError
void write_file(std::string const& path, std::string_view content);

}  // namespace plait
