// The mask on the command line: flags that intersect.
#pragma once

#include <string_view>
#include <vector>

#include "command_line.hpp"
#include "plait/mask.hpp"

namespace plait {

/// --causal, --window, --documents, --block-mask with --block-size, --bands.
[[nodiscard]] po::options_description mask_flags();

/// The intersection of the masks that the flags name; full if they name none. Reads the files that they name.
/// @throws UsageError, InvalidProblem, FileError
[[nodiscard]] Mask parse_mask(CommandLine const& line, Index q_tokens, Index kv_tokens);

/// Bands from JSON text: [{"q": [begin, end], "kv": [begin, end], "lo": int|null, "hi": int|null}, …] with lo
/// and hi on k − q; an absent lo or hi is null. @throws UsageError that names the band and the field
[[nodiscard]] std::vector<Band> parse_bands(std::string_view json, std::string_view file);

}  // namespace plait
