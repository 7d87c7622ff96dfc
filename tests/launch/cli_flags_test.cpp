// Flags: what good values mean, and the message of each bad one.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "attend_flags.hpp"
#include "device_choice.hpp"
#include "exit_code.hpp"
#include "mask_flags.hpp"
#include "problem_flags.hpp"
#include "random.hpp"
#include "scratch.hpp"
#include "size.hpp"

namespace plait {
namespace {

using testing_scratch::Scratch;

po::options_description all_flags() {
  po::options_description flags;
  po::options_description plan("Plan");
  add_plan_flags(plan);
  flags.add(shape_flags()).add(mask_flags()).add(plan).add(machine_flags());
  return flags;
}

Problem problem_of(Words words) {
  CommandLine const line(words, all_flags());
  return parse_problem(line, parse_shape(line));
}

/// The message that refuses these words; fails if nothing does.
std::string refusal(Words const& words) {
  try {
    (void)problem_of(words);
  } catch (std::exception const& error) {
    EXPECT_EQ(exit_code(error), ExitCode::usage) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

void expect_names(std::string const& message, Words const& parts) {
  for (std::string const& part : parts) EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Size, ReadsBinarySuffixes) {
  EXPECT_EQ(parse_size("--tokens", "0"), 0);
  EXPECT_EQ(parse_size("--tokens", "3K"), 3072);
  EXPECT_EQ(parse_size("--tokens", "2M"), 2097152);
  EXPECT_EQ(parse_size("--tokens", "1G"), 1073741824);
  EXPECT_EQ(parse_size("--window", "-1", -1), -1);
}

TEST(Size, RefusesAllElseAndSaysWhatItTakes) {
  for (std::string const bad : {"", "K", "4Q", "1.5K", "-1", "9999999999999G", " 4", "4 ", "0x10"}) {
    try {
      (void)parse_size("--tokens", bad);
      ADD_FAILURE() << bad;
    } catch (UsageError const& error) {
      expect_names(error.what(), {"--tokens", bad, "whole number", "K, M and G"});
    }
  }
}

TEST(Size, PrintsUnits) {
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(std::uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(format_seconds(0.25), "250.00 ms");
}

TEST(ProblemFlags, DefaultsFollowTheOtherFlags) {
  Problem const p = problem_of({"--tokens", "1K", "--heads", "4", "--dim", "16"});
  EXPECT_EQ(p.shape, (Shape{1, 1024, 1024, 4, 4, 16, 16, DType::bf16}));
  EXPECT_DOUBLE_EQ(p.scale, 0.25);
  EXPECT_EQ(p.mask.area(), 1024 * 1024);
}

TEST(ProblemFlags, HeadsInOneFlagOrInTwo) {
  for (std::vector<std::string> const& heads :
       {std::vector<std::string>{"--heads", "6:2"}, {"--heads", "6", "--kv-heads", "2"}}) {
    std::vector<std::string> words{"--tokens", "8"};
    words.insert(words.end(), heads.begin(), heads.end());
    Shape const shape = problem_of(words).shape;
    EXPECT_EQ(shape.q_heads, 6);
    EXPECT_EQ(shape.kv_heads, 2);
  }
}

TEST(ProblemFlags, RefusalsNameFlagValueAndWhatFits) {
  expect_names(refusal({}), {"--tokens", "missing"});
  expect_names(refusal({"--tokens", "8", "--heads", "6", "--kv-heads", "4"}), {"--kv-heads 4", "divisor"});
  expect_names(refusal({"--tokens", "8", "--heads", "6:4"}), {"--heads 6:4", "divisor"});
  expect_names(refusal({"--tokens", "8", "--heads", "6:2", "--kv-heads", "2"}), {"--heads 6:2", "once"});
  expect_names(refusal({"--tokens", "8", "--heads", "6:"}), {"--heads"});
  expect_names(refusal({"--tokens", "8", "--dim", "513"}), {"--dim 513", "from 1 to 512"});
  expect_names(refusal({"--tokens", "8", "--dtype", "f64"}), {"--dtype f64", "f32, f16, bf16"});
  expect_names(refusal({"--tokens", "8", "--scale", "nan"}), {"--scale nan", "finite"});
  expect_names(refusal({"--tokns", "8"}), {"--tokns", "did you mean --tokens"});
  expect_names(refusal({"--zzzzzz"}), {"--zzzzzz", "there are", "--causal"});
  expect_names(refusal({"8"}), {"8", "expected a flag"});
  expect_names(refusal({"--tokens"}), {"tokens"});
  expect_names(refusal({"--tokens", "8", "--tokens", "9"}), {"tokens"});
}

TEST(MaskFlags, MeanWhatTheirDefinitionSays) {
  // With j = k − q − (keys − queries): brute force over every pair, each flag's law written out here.
  constexpr Index queries = 12;
  constexpr Index keys = 20;
  Mask const mask = problem_of({"--tokens", "12", "--kv-tokens", "20", "--causal", "--window", "3,-1"}).mask;
  for (Index q = 0; q < queries; ++q) {
    for (Index k = 0; k < keys; ++k) {
      Index const j = k - q - (keys - queries);
      EXPECT_EQ(mask.keeps(q, k), j <= 0 && j >= -3) << q << " " << k;
    }
  }
  Mask const unbounded = problem_of({"--tokens", "8", "--window", "-1,0"}).mask;
  EXPECT_EQ(unbounded.area(), 36);
}

TEST(MaskFlags, DocumentsFromListAndFile) {
  Scratch const scratch;
  std::ofstream(scratch / "lengths") << "3\n5\n0\n2\n";
  std::string at_file = (scratch / "lengths").string();
  at_file.insert(at_file.begin(), '@');
  Mask const from_list = problem_of({"--tokens", "10", "--documents", "3,5,0,2"}).mask;
  Mask const from_file = problem_of({"--tokens", "10", "--documents", at_file}).mask;
  EXPECT_EQ(from_list.area(), 9 + 25 + 4);
  EXPECT_EQ(from_list, from_file);
}

TEST(MaskFlags, BandsOfJson) {
  Scratch const scratch;
  std::ofstream(scratch / "bands.json")
      << R"([{"q":[0,4],"kv":[0,8],"lo":null,"hi":0},{"q":[4,8],"kv":[2,6],"lo":-3}])";
  Mask const mask = problem_of({"--tokens", "8", "--bands", (scratch / "bands.json").string()}).mask;
  for (Index q = 0; q < 8; ++q) {
    for (Index k = 0; k < 8; ++k) {
      bool const first = q < 4 && k - q <= 0;
      bool const second = q >= 4 && k >= 2 && k < 6 && k - q >= -3;
      EXPECT_EQ(mask.keeps(q, k), first || second) << q << " " << k;
    }
  }
}

TEST(MaskFlags, RefusalsNameFlagValueAndWhatFits) {
  expect_names(refusal({"--tokens", "8", "--window", "3"}), {"--window 3", "LEFT,RIGHT"});
  expect_names(refusal({"--tokens", "8", "--window", "-2,0"}), {"--window", "-2", "-1"});
  expect_names(refusal({"--tokens", "8", "--window", "1,x"}), {"--window x", "whole number"});
  expect_names(refusal({"--tokens", "8", "--documents", "3,4"}), {"--documents", "sum to 7", "8 tokens"});
  expect_names(refusal({"--tokens", "8", "--kv-tokens", "9", "--documents", "8"}),
               {"--documents", "8 and 9"});
  expect_names(refusal({"--tokens", "8", "--documents", "3,-5"}), {"--documents -5"});
  expect_names(refusal({"--tokens", "8", "--block-size", "4"}), {"--block-size", "--block-mask"});
  expect_names(refusal({"--tokens", "8", "--block-mask", "x"}), {"--block-size", "missing"});
}

TEST(MaskFlags, BandRefusalsNameBandAndField) {
  std::vector<std::pair<std::string, Words>> const cases = {
      {"{", {"b.json", "not JSON"}},
      {"{}", {"b.json", "list of bands"}},
      {"[1]", {"band 0", "an object"}},
      {R"([{"q":[0,1],"kv":[0,1]},{"q":[0],"kv":[0,1]}])", {"band 1", "q", "[begin, end]"}},
      {R"([{"q":[0,1]}])", {"band 0", "kv"}},
      {R"([{"q":[0,1],"kv":[0,1],"lo":1.5}])", {"lo", "whole number or null"}},
      {R"([{"q":[0,1],"kv":[0,1],"low":1}])", {"low"}}};
  for (auto const& [json, parts] : cases) {
    try {
      (void)parse_bands(json, "b.json");
      ADD_FAILURE() << json;
    } catch (UsageError const& error) {
      expect_names(error.what(), parts);
    }
  }
}

TEST(AttendFlags, CheckTakesRowsOrNone) {
  EXPECT_FALSE(parse_attend({"--input", "x"}).checks);
  EXPECT_EQ(parse_attend({"--input", "x", "--check", "--causal"}).check_rows, std::nullopt);
  EXPECT_EQ(parse_attend({"--input", "x", "--check", "2K"}).check_rows, 2048);
  EXPECT_EQ(timeout_of({"--input", "x", "--timeout", "2.5"}, attend_flags()),
            std::chrono::milliseconds(2500));
  EXPECT_EQ(timeout_of({"--timeout", "soon"}, attend_flags()), std::chrono::seconds(60));
}

TEST(AttendFlags, ReadsDeviceAndTransport) {
  EXPECT_EQ(parse_attend({"--input", "x"}).run.device, "auto");
  EXPECT_EQ(parse_attend({"--input", "x", "--device", "cuda", "--share-gpu"}).run.share_gpu, true);
  EXPECT_EQ(parse_attend({"--input", "x", "--transport", "nccl"}).run.transport, TransportKind::nccl);
  EXPECT_EQ(parse_attend({"--input", "x", "--transport", "peer"}).run.transport, TransportKind::peer);
  EXPECT_THROW((void)parse_attend({"--input", "x", "--device", "tpu"}), UsageError);
}

TEST(DeviceChoice, RanksTakeTheGpuOfTheirNumberOrShareIfTheyMay) {
  EXPECT_EQ(choose_gpu(0, 1, 1, false), 0);
  EXPECT_EQ(choose_gpu(3, 4, 8, false), 3);
  EXPECT_EQ(choose_gpu(3, 4, 1, false), 0);  // each process may see one GPU, its own
  EXPECT_EQ(choose_gpu(5, 8, 4, true), 1);
  try {
    (void)choose_gpu(0, 8, 4, false);
    ADD_FAILURE() << "nothing was thrown";
  } catch (Unsupported const& error) {
    expect_names(error.what(), {"8 ranks", "4 GPUs", "--share-gpu"});
  }
}

TEST(RandomTensor, HasTheMomentsOfANormalAndUniform) {
  RandomTensor const random(7, 1);
  constexpr int count = 100'000;
  double sum = 0, squares = 0, uniform_squares = 0;
  for (int i = 0; i < count; ++i) {
    double const x = random.normal(static_cast<std::uint64_t>(i));
    sum += x;
    squares += x * x;
    uniform_squares += std::pow(random.uniform(static_cast<std::uint64_t>(i)), 2);
  }
  // Five standard deviations of each estimate.
  EXPECT_NEAR(sum / count, 0.0, 5 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1.0, 5 * std::sqrt(2.0 / count));
  EXPECT_NEAR(uniform_squares / count, 1.0 / 3, 5 * 0.3 / std::sqrt(count));
}

}  // namespace
}  // namespace plait
