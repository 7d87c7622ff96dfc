// Studies: rank and head lists, efficiency, ticks, labels, and the pictures' text.
#include <gtest/gtest.h>

#include <cmath>

#include "axis.hpp"
#include "chart.hpp"
#include "exit_code.hpp"
#include "study_row.hpp"
#include "svg.hpp"

namespace plait {
namespace {

using Numbers = std::vector<double>;

void expect_near(Numbers const& found, Numbers const& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1e-9 * std::abs(expected[i]));
}

std::string refusal(Words const& words) {
  try {
    (void)parse_study(words);
  } catch (std::exception const& error) {
    EXPECT_EQ(exit_code(error), ExitCode::usage) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

StudyRow measured_row(int ranks, double seconds, double flops) {
  StudyRow row;
  row.ranks = ranks;
  row.source = Source::measured;
  row.seconds = seconds;
  row.flops = flops;
  row.predicted_one_rank_seconds = 100.0;
  return row;
}

TEST(StudyFlags, RankListsHoldCountsAndDoublings) {
  EXPECT_EQ(parse_ranks("4"), (std::vector<int>{4}));
  EXPECT_EQ(parse_ranks("8..64"), (std::vector<int>{8, 16, 32, 64}));
  EXPECT_EQ(parse_ranks("3..20,1,2,6"), (std::vector<int>{1, 2, 3, 6, 12}));
  EXPECT_EQ(parse_ranks("1..64K").back(), 65536);
  for (std::string const bad : {"", "0", "1,,2", "8..4", "..4", "4..", "a", "1,", "128K"}) {
    EXPECT_THROW((void)parse_ranks(bad), UsageError) << bad;
  }
}

TEST(StudyFlags, HeadPairs) {
  EXPECT_EQ(parse_heads("64:8,1:1,7"), (std::vector<HeadPair>{{64, 8}, {1, 1}, {7, 7}}));
  for (std::string const bad : {"", "8:3", "8:", ":8", "0:0", "8:8:8"}) {
    EXPECT_THROW((void)parse_heads(bad), UsageError) << bad;
  }
}

TEST(StudyFlags, RefusalsNameTheFlag) {
  EXPECT_NE(refusal({"--ranks", "2"}).find("--tokens-per-rank N (weak"), std::string::npos);
  EXPECT_NE(refusal({"--tokens", "8", "--tokens-per-rank", "8", "--ranks", "2"}).find("expected one of"),
            std::string::npos);
  EXPECT_NE(refusal({"--tokens", "8"}).find("--ranks is missing"), std::string::npos);
  EXPECT_NE(
      refusal({"--tokens", "8", "--ranks", "2", "--strategies", "ring,rnig"}).find("--strategies 'rnig'"),
      std::string::npos);
  EXPECT_NE(
      refusal({"--tokens-per-rank", "8", "--ranks", "2", "--bands", "x"}).find("--bands: holds for one"),
      std::string::npos);
  EXPECT_NE(refusal({"--tokens", "8", "--ranks", "2", "--timeline", "ring@2"}).find("needs --plots"),
            std::string::npos);
  EXPECT_NE(
      refusal({"--tokens", "8", "--ranks", "2", "--plots", "x", "--timeline", "ring@4"}).find("the study's"),
      std::string::npos);
}

TEST(StudyFlags, DocumentsOfWeakScalingAreRepeatedForEachRank) {
  StudyOptions const options =
      parse_study({"--tokens-per-rank", "10", "--ranks", "1,3", "--documents", "3,7", "--causal"});
  Problem const problem = study_problem(options, {1, 1}, 3);
  EXPECT_EQ(problem.shape.q_tokens, 30);
  EXPECT_EQ(problem.mask.area(), 3 * (3 * 4 / 2 + 7 * 8 / 2));
  EXPECT_TRUE(problem.mask.keeps(12, 10));
  EXPECT_FALSE(problem.mask.keeps(13, 12));
  EXPECT_FALSE(problem.mask.keeps(10, 9));
  EXPECT_EQ(mask_name(options.line), "causal + documents 3,7");
}

TEST(StudyRow, EfficiencyIsOneRankTimeOverTheTimeSpent) {
  EXPECT_DOUBLE_EQ(efficiency(12.0, 4, 4.0), 0.75);
  EXPECT_EQ(efficiency(1.0, 4, 0.0), 0.0);
  EXPECT_DOUBLE_EQ(median({5, 1, 3}), 3.0);
  EXPECT_DOUBLE_EQ(median({4, 1, 3, 2}), 2.5);
}

TEST(StudyRow, MeasuredRowsAreHeldAgainstTheFastestMeasuredRank) {
  std::vector<StudyRow> rows = {measured_row(1, 8.0, 1e9), measured_row(1, 6.0, 1e9),
                                measured_row(2, 5.0, 1e9), measured_row(4, 9.0, 4e9)};
  rows.push_back(measured_row(4, 10.0, 1e9));
  rows.back().source = Source::simulated;
  rows.push_back(measured_row(2, 10.0, 1e9));
  rows.back().shape.q_heads = 2;  // other heads: no single rank was measured
  set_efficiencies(rows);
  EXPECT_DOUBLE_EQ(rows[1].efficiency, 1.0);
  EXPECT_DOUBLE_EQ(rows[2].efficiency, 6.0 / (2 * 5.0));
  EXPECT_DOUBLE_EQ(rows[3].efficiency, 4 * 6.0 / (4 * 9.0));  // weak: four times the work
  EXPECT_DOUBLE_EQ(rows[4].efficiency, 100.0 / (4 * 10.0));
  EXPECT_DOUBLE_EQ(rows[5].efficiency, 100.0 / (2 * 10.0));
}

TEST(StudyRow, CsvQuotesAndLeavesRefusedFiguresEmpty) {
  StudyRow row = measured_row(2, 5.0, 1e9);
  row.mask = "window 4,0";
  row.refused = "needs \"8\" heads, has 1";
  std::string const csv = rows_csv({row});
  EXPECT_TRUE(
      csv.starts_with("scaling,strategy,plan,layout,mask,heads,kv_heads,ranks,tokens,source,seconds,"));
  EXPECT_NE(csv.find("\"window 4,0\",1,1,2,0,measured,,,,,,,,,\"needs \"\"8\"\" heads, has 1\""),
            std::string::npos)
      << csv;
}

TEST(Axis, LinearTicksAreRoundAndFew) {
  expect_near(linear_ticks(0, 1, 10), {0, 0.2, 0.4, 0.6, 0.8, 1});
  expect_near(linear_ticks(0, 1, 11), {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1});
  expect_near(linear_ticks(0, 4.62, 9), {0, 1, 2, 3, 4});
  expect_near(linear_ticks(0, 0.073, 9), {0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07});
  for (double high = 1e-6; high < 1e6; high *= 1.37) {
    Numbers const ticks = linear_ticks(0, high, 9);
    EXPECT_GE(ticks.size(), 3u) << high;
    EXPECT_LE(ticks.size(), 9u) << high;
    EXPECT_FALSE(std::signbit(ticks.front()));
  }
}

TEST(Axis, DecimalTicksAreDecadesAndFillUpShortRanges) {
  expect_near(decimal_ticks(0.05, 200, 10), {0.1, 1, 10, 100});
  expect_near(decimal_ticks(0.9, 60, 10), {1, 2, 5, 10, 20, 50});
  expect_near(decimal_ticks(2, 8, 10), {2, 5});
  expect_near(decimal_ticks(1e-9, 1e9, 10), {1e-8, 1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6, 1e8});
}

TEST(Axis, BinaryTicksThinOutEvenly) {
  expect_near(binary_ticks(1, 16, 10), {1, 2, 4, 8, 16});
  expect_near(binary_ticks(1, 256, 4), {1, 8, 64});
  expect_near(binary_ticks(3, 40, 10), {4, 8, 16, 32});
}

TEST(Axis, ValuesLieInsideAndLabelsNameUnits) {
  for (Quantity const quantity : {Quantity::count, Quantity::seconds, Quantity::share, Quantity::bytes}) {
    Axis const axis = make_axis("x", quantity, {0.25, 0.5, 1.0});
    for (double const value : {0.25, 0.5, 1.0}) {
      EXPECT_GT(axis.position(value), 0.0);
      EXPECT_LT(axis.position(value), 1.0);
    }
    for (double const tick : axis.ticks) {
      EXPECT_GE(axis.position(tick), -1e-9);
      EXPECT_LE(axis.position(tick), 1 + 1e-9);
    }
    EXPECT_FALSE(make_axis("x", quantity, {}).ticks.empty());
    EXPECT_FALSE(make_axis("x", quantity, {3.0}).ticks.empty()) << static_cast<int>(quantity);
  }
  EXPECT_EQ(tick_label(Quantity::seconds, 0.02), "20 ms");
  EXPECT_EQ(tick_label(Quantity::seconds, 1e-3), "1 ms");
  EXPECT_EQ(tick_label(Quantity::seconds, 0), "0");
  EXPECT_EQ(tick_label(Quantity::share, 0.4), "40%");
  EXPECT_EQ(tick_label(Quantity::bytes, 0x1p31), "2 GiB");
  EXPECT_EQ(tick_label(Quantity::count, 4096), "4096");
}

TEST(Chart, LabelsKeepTheirGapAndTheirOrder) {
  expect_near(spread_labels({10, 10, 10, 50}, 20, 0, 100), {10, 30, 50, 70});
  expect_near(spread_labels({95, 96}, 20, 0, 100), {80, 100});
  expect_near(spread_labels({5, 60}, 20, 0, 100), {5, 60});
}

TEST(Svg, EscapesWhatXmlReserves) {
  EXPECT_EQ(xml_escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
}

}  // namespace
}  // namespace plait
