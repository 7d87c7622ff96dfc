// One subcommand's flags: declared with Boost.Program_options, read as text, converted where they are used.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plait {

namespace po = boost::program_options;
using Words = std::vector<std::string>;

/// A flag with a value, kept as text.
[[nodiscard]] po::typed_value<std::string>* text(std::string const& placeholder);
/// A flag whose value may be left out, which then reads as `implied`.
[[nodiscard]] po::typed_value<std::string>* optional_text(std::string const& placeholder,
                                                          std::string const& implied);

/// Values of the flags that were given.
class CommandLine {
 public:
  /// @throws UsageError on an unknown flag (with the nearest that exists), a flag given twice or without its
  /// value, or an argument that is no flag
  CommandLine(Words const& words, po::options_description const& flags);

  [[nodiscard]] bool has(std::string const& flag) const { return values_.count(flag) != 0; }
  [[nodiscard]] std::optional<std::string> get(std::string const& flag) const;
  [[nodiscard]] std::string get(std::string const& flag, std::string const& absent) const;
  /// @throws UsageError if it is absent
  [[nodiscard]] std::string require(std::string const& flag) const;
  /// A value that must be one of `choices`. @throws UsageError
  [[nodiscard]] std::string choose(std::string const& flag, std::string const& absent,
                                   std::span<std::string_view const> choices) const;

 private:
  po::variables_map values_;
};

[[nodiscard]] bool asks_for_help(Words const& words);

/// The one of `known` with the fewest edits to `word`, if they are few; else empty.
[[nodiscard]] std::string nearest(std::string_view word, std::span<std::string const> known);

}  // namespace plait
