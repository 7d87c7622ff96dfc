// The CPU's folds, every path and element type, against the fp64 oracle.
#include <cstdlib>

#include "fold_checks.hpp"
#include "plait/cpu_device.hpp"

namespace plait {
namespace {

using test::Case;

using Path = std::tuple<CpuIsa, DType>;

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
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "libgomp is not instrumented: ThreadSanitizer does not see how it orders its threads";
#endif
  Case const shape{.q_rows = 500, .kv_rows = 300, .q_heads = 4, .kv_heads = 2, .dim = 32, .value_dim = 48};
  std::vector<std::vector<float>> results;
  for (int const threads : {1, 3, 3}) {
    auto const device = make_cpu_device({.threads = threads, .isa = isa()});
    results.push_back(test::folded_twice(*device, dtype(), shape));
  }
  test::expect_same_bits(results[0], results[1]);
  test::expect_same_bits(results[1], results[2]);
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
    for (DType const dtype : {DType::f32, DType::f16, DType::bf16}) found.emplace_back(isa, dtype);
  }
  return found;
}

INSTANTIATE_TEST_SUITE_P(Paths, CpuFold, testing::ValuesIn(paths()), [](auto const& path) {
  return std::string(name(std::get<0>(path.param))) + '_' + std::string(name(std::get<1>(path.param)));
});

TEST(CpuDevice, FinishOfTheIdentityIsZeroAndMinusInfinity) {
  test::check_identity_finishes_as_nothing(*make_cpu_device({.threads = 1}));
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
  EXPECT_NE(message.find(
                "PLAIT_CPU_ISA=mmx: must be scalar, avx2, avx512 or avx512_bf16; this processor has scalar"),
            std::string::npos)
      << message;
}

}  // namespace
}  // namespace plait
