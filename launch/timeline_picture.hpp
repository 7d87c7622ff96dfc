// A timeline as a picture: per rank a row each for what it computes, sends and receives.
#pragma once

#include <string>

#include "plait/plan.hpp"
#include "plait/timeline.hpp"

namespace plait {

/// As an SVG document. Ranks beyond those that fit are left out, and a line says so.
[[nodiscard]] std::string draw_timeline(Timeline const& timeline, Plan const& plan, std::string const& title,
                                        std::string const& subtitle);

}  // namespace plait
