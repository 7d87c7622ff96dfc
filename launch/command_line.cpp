#include "command_line.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/parsers.hpp>
#include <cctype>
#include <numeric>

#include "exit_code.hpp"

namespace plait {
namespace {

constexpr unsigned unlimited = 1;

/// Levenshtein's distance.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      std::size_t const replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

/// Boost takes the value of a flag that may lack one only after '=': joins a number that follows.
Words join_optional_values(Words const& words, po::options_description const& flags) {
  Words joined;
  for (std::size_t i = 0; i < words.size(); ++i) {
    joined.push_back(words[i]);
    if (!words[i].starts_with("--") || i + 1 == words.size()) continue;
    po::option_description const* const flag = flags.find_nothrow(words[i].substr(2), false);
    bool const optional =
        flag != nullptr && flag->semantic()->min_tokens() == 0 && flag->semantic()->max_tokens() == unlimited;
    bool const is_number = !words[i + 1].empty() && std::isdigit(static_cast<unsigned char>(words[i + 1][0]));
    if (optional && is_number) joined.back() += "=" + words[++i];
  }
  return joined;
}

[[noreturn]] void refuse_flag(std::string const& word, po::options_description const& flags) {
  std::vector<std::string> known;
  for (auto const& flag : flags.options()) known.push_back("--" + flag->long_name());
  std::string const flag = word.substr(0, word.find('='));
  std::string const meant = nearest(flag, known);
  throw UsageError(meant.empty() ? fmt::format("unknown flag {}; there are {}", flag, fmt::join(known, ", "))
                                 : fmt::format("unknown flag {}; did you mean {}?", flag, meant));
}

}  // namespace

po::typed_value<std::string>* text(std::string const& placeholder) {
  return po::value<std::string>()->value_name(placeholder);
}
po::typed_value<std::string>* optional_text(std::string const& placeholder, std::string const& implied) {
  return po::value<std::string>()->value_name(placeholder)->implicit_value(implied, "");
}

CommandLine::CommandLine(Words const& words, po::options_description const& flags) {
  using namespace po::command_line_style;
  try {
    auto const parsed = po::command_line_parser(join_optional_values(words, flags))
                            .options(flags)
                            .style(allow_long | long_allow_adjacent | long_allow_next | allow_short |
                                   allow_dash_for_short | short_allow_next)
                            .allow_unregistered()
                            .run();
    for (auto const& option : parsed.options) {
      if (option.position_key >= 0) {
        throw UsageError(fmt::format("{}: expected a flag, such as {}", option.original_tokens.at(0),
                                     "--" + flags.options().front()->long_name()));
      }
      if (option.unregistered) refuse_flag(option.original_tokens.at(0), flags);
    }
    po::store(parsed, values_);
  } catch (po::error const& error) {
    throw UsageError(error.what());
  }
}

std::optional<std::string> CommandLine::get(std::string const& flag) const {
  if (!has(flag)) return std::nullopt;
  return values_[flag].as<std::string>();
}

std::string CommandLine::get(std::string const& flag, std::string const& absent) const {
  return get(flag).value_or(absent);
}

std::string CommandLine::require(std::string const& flag) const {
  if (!has(flag)) throw UsageError(fmt::format("--{} is missing (see --help)", flag));
  return *get(flag);
}

std::string CommandLine::choose(std::string const& flag, std::string const& absent,
                                std::span<std::string_view const> choices) const {
  std::string value = get(flag, absent);
  if (std::ranges::find(choices, value) != choices.end()) return value;
  throw UsageError(fmt::format("--{} {}: expected one of {}", flag, value, fmt::join(choices, ", ")));
}

bool asks_for_help(Words const& words) {
  return std::ranges::any_of(words, [](std::string const& word) { return word == "--help" || word == "-h"; });
}

std::string nearest(std::string_view word, std::span<std::string const> known) {
  std::size_t const most = std::max<std::size_t>(1, word.size() / 3);
  std::string best;
  std::size_t best_edits = most + 1;
  for (std::string const& candidate : known) {
    std::size_t const distance = edits(word, candidate);
    if (distance < best_edits) {
      best = candidate;
      best_edits = distance;
    }
  }
  return best;
}

}  // namespace plait
