// The pictures of a study: which figure of its rows is drawn against the ranks, and under which file name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plait/timeline.hpp"
#include "study_row.hpp"

namespace plait {

struct Picture {
  std::string file;  ///< "time.svg"
  std::string svg;
};

/// The timeline of one point; without a plan there is none to draw.
struct TimelinePicture {
  StudyRow row;
  std::optional<Plan> plan = std::nullopt;
  Timeline timeline = {};
};

/// Time, efficiency, bytes per rank and exposed share for each pair of heads (named in the files if there are
/// several), and the timeline.
[[nodiscard]] std::vector<Picture> study_pictures(std::vector<StudyRow> const& rows,
                                                  TimelinePicture const& timeline);

}  // namespace plait
