// The CPU's folds, every path and element type, against the fp64 oracle.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "fold_checks.hpp"
#include "plait/cpu_device.hpp"

namespace plait {
namespace {

using test::Case;

using Path = std::tuple<CpuIsa, DType>;

#ifdef __SANITIZE_THREAD__
constexpr bool traced = true;
#else
constexpr bool traced = false;
#endif

/// Whether ThreadSanitizer, if it is there, is told what orders threads: tests/run.sh sees to that.
bool order_is_seen() {
  return !traced || std::getenv("OMP_TOOL_LIBRARIES") != nullptr;
}

/// Numbers of threads among which keys are split; one where all is many times slower.
std::vector<int> thread_counts() {
  return traced ? std::vector{3} : std::vector{2, 3, 4, 7};
}

class CpuFold : public testing::TestWithParam<Path> {
 protected:
  CpuFold() : device_(make_cpu_device({.threads = 1, .isa = isa()})) {}
  [[nodiscard]] static CpuIsa isa() { return std::get<0>(GetParam()); }
  [[nodiscard]] static DType dtype() { return std::get<1>(GetParam()); }

  void check_full_and_causal(Case const& shape) { test::check_full_and_causal(*device_, dtype(), shape); }

  std::unique_ptr<Device> device_;
};

TEST_P(CpuFold, ShapesOfAllKinds) {
  for (auto const& [q_rows, kv_rows] : {std::pair<Index, Index>{1, 1},
                                        {1, 3},
                                        {2, 1},
                                        {511, 1},
                                        {3, 513},
                                        {239, 1},
                                        {799, 3},
                                        {113, 203},
                                        {108, 256}}) {
    check_full_and_causal(
        {.q_rows = q_rows, .kv_rows = kv_rows, .q_heads = 4, .kv_heads = 2, .dim = 32, .value_dim = 32});
  }
  if (isa() == CpuIsa::scalar) return;  // the reference path is slow
  check_full_and_causal({.q_rows = 1023, .kv_rows = 1024});
  check_full_and_causal({.q_rows = 1024, .kv_rows = 1023});
}

TEST_P(CpuFold, HeadDimensionsOfAllKinds) {
  for (Index const dim : {1, 3, 40, 59, 64, 96, 111, 128, 192, 256, 512}) {
    check_full_and_causal({.q_rows = 70, .kv_rows = 90, .q_heads = 2, .dim = dim, .value_dim = dim});
  }
  check_full_and_causal({.q_rows = 70, .kv_rows = 90, .q_heads = 2, .dim = 192, .value_dim = 128});
  check_full_and_causal({.q_rows = 70, .kv_rows = 90, .q_heads = 2, .dim = 17, .value_dim = 130});
}

TEST_P(CpuFold, HeadsInGroupsAndBatches) {
  check_full_and_causal(
      {.q_rows = 50, .kv_rows = 60, .q_heads = 3, .kv_heads = 3, .dim = 24, .value_dim = 20});
  check_full_and_causal(
      {.q_rows = 50, .kv_rows = 60, .q_heads = 6, .kv_heads = 2, .dim = 24, .value_dim = 20, .batch = 3});
  check_full_and_causal(
      {.q_rows = 50, .kv_rows = 60, .q_heads = 8, .kv_heads = 1, .dim = 24, .value_dim = 20});
}

TEST_P(CpuFold, BandsThatShareRowsAndBandsThatDoNot) {
  test::check_bands(*device_, dtype(), {.dim = 32, .value_dim = 32});
}

TEST_P(CpuFold, LargeLogitsStayFinite) {
  // Scores up to about ±1e4: one key takes all of the weight.
  check_full_and_causal({.q_rows = 64, .kv_rows = 300, .dim = 64, .value_dim = 16, .spread = 30.0f});
}

TEST_P(CpuFold, CarriedFoldsInAnyOrderEqualOneFold) {
  test::check_carried_in_any_order(*device_, dtype(), {.q_heads = 2, .dim = 40, .value_dim = 24});
}

TEST_P(CpuFold, MergedStatesEqualOneFold) {
  test::check_merged_states(*device_, dtype(), {.q_heads = 2, .dim = 40, .value_dim = 24});
}

TEST_P(CpuFold, CarriedRowsThatSeeNoKeyStayBitForBit) {
  test::check_unseen_rows_stay(*device_, dtype(), {.dim = 16, .value_dim = 16});
}

TEST_P(CpuFold, RepeatsBitForBitOnAnyNumberOfThreads) {
  if (!order_is_seen()) GTEST_SKIP() << "ThreadSanitizer does not see how libgomp orders its threads";
  Case const shape{.q_rows = 500, .kv_rows = 300, .q_heads = 4, .kv_heads = 2, .dim = 32, .value_dim = 48};
  std::vector<std::vector<float>> results;
  for (int const threads : {1, 3, 3}) {
    auto const device = make_cpu_device({.threads = threads, .isa = isa()});
    results.push_back(test::folded_twice(*device, dtype(), shape));
  }
  test::expect_same_bits(results[0], results[1]);
  test::expect_same_bits(results[1], results[2]);
}

// One tile of few or many rows and many keys: each device has more threads than there are tiles and heads.
TEST_P(CpuFold, KeysSplitOverThreads) {
  if (!order_is_seen()) GTEST_SKIP() << "ThreadSanitizer does not see how libgomp orders its threads";
  for (int const threads : thread_counts()) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    auto const device = make_cpu_device({.threads = threads, .isa = isa()});
    // The reference path adds keys one by one: over thousands, that rounds more than a blocked sum may.
    Index const keys = isa() == CpuIsa::scalar ? 1001 : 2501;
    Case one{.q_rows = 1, .kv_rows = keys, .q_heads = 2, .kv_heads = 2, .dim = 259, .value_dim = 240};
    test::check_full_and_causal(*device, dtype(), one);
    Case const tile{.q_rows = 100, .kv_rows = 1000, .q_heads = 2, .dim = 32, .value_dim = 48};
    test::check_full_and_causal(*device, dtype(), tile);
    // A sink and a window: two ranges, of which a part may hold the end of one and the start of the other.
    std::vector<Band> const bands{{.q = {0, 1}, .kv = {0, 300}}, {.q = {0, 1}, .kv = {401, keys}}};
    test::check(*device, dtype(), one, bands, [](Index, Index k) { return k < 300 || k > 400; });
    test::check_unseen_rows_stay(*device, dtype(), {.dim = 512, .value_dim = 512});
    test::check_carried_in_any_order(*device, dtype(), {.q_heads = 2, .dim = 256, .value_dim = 256});
    test::check_nan_inputs_show(*device, dtype(), {.q_heads = 1, .dim = 512, .value_dim = 512});
  }
}

TEST_P(CpuFold, SplitKeysRepeatBitForBit) {
  if (!order_is_seen()) GTEST_SKIP() << "ThreadSanitizer does not see how libgomp orders its threads";
  for (Index const rows : {1, 150}) {
    Case const shape{
        .q_rows = rows, .kv_rows = 4000, .q_heads = 2, .kv_heads = 1, .dim = 64, .value_dim = 64};
    for (int const threads : thread_counts()) {
      auto const device = make_cpu_device({.threads = threads, .isa = isa()});
      std::vector<float> const once = test::folded_twice(*device, dtype(), shape);
      for (int repeat = 0; repeat < 5; ++repeat) {
        test::expect_same_bits(once, test::folded_twice(*device, dtype(), shape));
      }
    }
  }
}

// Decoding: fewer rows than a block of the packed fold, many heads, and what ends within a vector.
TEST_P(CpuFold, FewRowsOfManyHeads) {
  if (isa() == CpuIsa::scalar) return;  // no fold of its own for them
  for (Index const rows : {1, 2, 4, 5, 11}) {
    for (auto const& [q_heads, kv_heads] : {std::pair<Index, Index>{5, 5}, {6, 3}, {6, 2}, {8, 1}}) {
      check_full_and_causal({.q_rows = rows,
                             .kv_rows = 531,
                             .q_heads = q_heads,
                             .kv_heads = kv_heads,
                             .dim = 40,
                             .value_dim = 33,
                             .batch = 2});
    }
  }
  for (Index const dim : {1, 3, 17, 59, 64, 111, 128, 192, 256, 511, 512}) {
    check_full_and_causal(
        {.q_rows = 1, .kv_rows = 90, .q_heads = 3, .kv_heads = 3, .dim = dim, .value_dim = dim});
    check_full_and_causal({.q_rows = 2, .kv_rows = 90, .q_heads = 2, .dim = 64, .value_dim = dim});
  }
  check_full_and_causal(  // more rows of all heads than one item of fold_few takes
      {.q_rows = 2, .kv_rows = 200, .q_heads = 80, .kv_heads = 80, .dim = 16, .value_dim = 16});
}

TEST_P(CpuFold, LongSequences) {
  if (isa() == CpuIsa::scalar) return;  // the reference path is slow
  check_full_and_causal({.q_rows = 4224, .kv_rows = 4224, .oracle_rows = 8});
  check_full_and_causal({.q_rows = 1, .kv_rows = 20001, .dim = 128, .value_dim = 128});
  check_full_and_causal({.q_rows = 9, .kv_rows = 20001, .dim = 128, .value_dim = 128});
}

// So many heads that only 16 keys of each are read before the next head's, 4,096 times: were each of these
// sums added to O at once, its rounding would show.
TEST_P(CpuFold, ManyHeadsOverALongCache) {
  if (isa() == CpuIsa::scalar || dtype() != DType::f32) return;
  test::check(*device_, dtype(),
              {.q_rows = 1, .kv_rows = 65536, .q_heads = 64, .kv_heads = 64, .dim = 8, .value_dim = 16},
              {{.q = {0, 1}, .kv = {0, 65536}}}, [](Index, Index) { return true; });
}

// More tiles than one item takes, and ranges that begin and end anywhere: also within a word of two keys.
TEST_P(CpuFold, WindowsAndDocumentsOverManyTiles) {
  Case const shape{
      .q_rows = 2001, .kv_rows = 2001, .q_heads = 2, .dim = 24, .value_dim = 24, .oracle_rows = 50};
  std::vector<Band> const window{{.q = {0, 2001}, .kv = {0, 2001}, .lo = -101, .hi = 13}};
  test::check(*device_, dtype(), shape, window,
              [](Index q, Index k) { return -101 <= k - q && k - q <= 13; });
  std::vector<Index> const starts{0, 1, 18, 77, 500, 501, 813, 1500, 1999, 2001};
  std::vector<Band> documents;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    Slice const tokens{starts[i], starts[i + 1]};
    documents.push_back({.q = tokens, .kv = tokens, .hi = 0});
  }
  auto const document = [&](Index token) { return std::ranges::upper_bound(starts, token) - starts.begin(); };
  test::check(*device_, dtype(), shape, documents,
              [&](Index q, Index k) { return k <= q && document(q) == document(k); });
}

TEST_P(CpuFold, KeysBetweenBandsMayBeNan) {
  for (Index const rows : {1, 40}) {
    Case const shape{.q_rows = rows, .kv_rows = 300, .q_heads = 2, .dim = 16, .value_dim = 16};
    test::Tensors tensors(*device_, dtype(), shape, 3);
    for (Index key = 31; key < 77; ++key) {
      for (Index d = 0; d < 16; ++d) {
        store(dtype(), tensors.k.view().at(0, key, 0), d, test::nan);
        store(dtype(), tensors.v.view().at(0, key, 0), d, test::nan);
      }
    }
    test::GuardedState state(*device_, shape);
    std::vector<Band> const bands{{.q = {0, rows}, .kv = {0, 31}}, {.q = {0, rows}, .kv = {77, 300}}};
    test::fold(*device_, tensors, bands, {0, 300}, state.view(), Start::identity);
    device_->finish(state.view(), tensors.output(*device_));
    test::expect_oracle(*device_, shape, tensors, [](Index, Index k) { return k < 31 || k >= 77; });
  }
}

TEST_P(CpuFold, ScratchIsFixedAfterTheFirstPrepareOfAShape) {
  auto const device = make_cpu_device({.threads = 3, .isa = isa()});
  EXPECT_EQ(device->scratch_bytes(), 0u);
  Case const shape{.q_rows = 300, .kv_rows = 300, .q_heads = 2, .dim = 96, .value_dim = 48};
  (void)test::folded_twice(*device, dtype(), shape);
  std::size_t const bytes = device->scratch_bytes();
  (void)test::folded_twice(*device, dtype(),
                           {.q_rows = 1, .kv_rows = 5000, .q_heads = 4, .dim = 96, .value_dim = 48});
  EXPECT_EQ(device->scratch_bytes(), bytes);
}

TEST_P(CpuFold, KeysThatNoRowSeesMayBeNan) {
  test::check_unseen_keys_may_be_nan(*device_, dtype(), {.dim = 16, .value_dim = 16});
}

TEST_P(CpuFold, NanInputsShow) {
  test::check_nan_inputs_show(*device_, dtype(), {.dim = 16, .value_dim = 16});
}

std::vector<Path> paths() {
  std::vector<Path> found;
  for (CpuIsa const isa : supported_isas()) {
    for (DType const dtype : {DType::f32, DType::f16, DType::bf16}) {
      bool const bf16_only = isa == CpuIsa::avx512_bf16 || isa == CpuIsa::amx_bf16;
      if (dtype == DType::bf16 || !bf16_only) found.emplace_back(isa, dtype);  // others run as avx512
    }
  }
  return found;
}

INSTANTIATE_TEST_SUITE_P(Paths, CpuFold, testing::ValuesIn(paths()), [](auto const& path) {
  return std::string(name(std::get<0>(path.param))) + '_' + std::string(name(std::get<1>(path.param)));
});

TEST(CpuDevice, FinishOfTheIdentityIsZeroAndMinusInfinity) {
  test::check_identity_finishes_as_nothing(*make_cpu_device({.threads = 1}));
}

TEST(CpuDevice, TheEnvironmentForcesAPath) {
  for (CpuIsa const isa : supported_isas()) {
    ::setenv("PLAIT_CPU_ISA", std::string(name(isa)).c_str(), 1);
    EXPECT_EQ(make_cpu_device({.threads = 1})->describe(), "cpu, " + std::string(name(isa)) + ", 1 thread");
    // What a program asks for goes first.
    EXPECT_EQ(make_cpu_device({.threads = 1, .isa = CpuIsa::scalar})->describe(), "cpu, scalar, 1 thread");
  }
  ::unsetenv("PLAIT_CPU_ISA");
  auto const fastest = std::string(name(supported_isas().back()));
  EXPECT_EQ(make_cpu_device({.threads = 1})->describe(), "cpu, " + fastest + ", 1 thread");
}

TEST(CpuDevice, RefusesWhatItCannotDoByName) {
  auto const message_of = [](auto&& action) -> std::string {
    try {
      action();
    } catch (Unsupported const& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  auto const device = make_cpu_device({.threads = 1});
  EXPECT_NE(
      message_of([&] {
        (void)device->prepare({.q = {0, 1}, .kv = {0, 1}, .bands = {}, .head_dim = 513, .value_dim = 64});
      }).find("513"),
      std::string::npos);
  ::setenv("PLAIT_CPU_ISA", "mmx", 1);
  std::string const message = message_of([] { (void)make_cpu_device(); });
  ::unsetenv("PLAIT_CPU_ISA");
  EXPECT_NE(message.find("PLAIT_CPU_ISA=mmx: must be scalar, avx2, avx512, avx512_bf16 or amx_bf16; this "
                         "processor has scalar"),
            std::string::npos)
      << message;
}

}  // namespace
}  // namespace plait
