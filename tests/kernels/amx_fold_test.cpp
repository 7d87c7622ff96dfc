// The AMX fold on emulated tiles. On a processor that has tiles, cpu_fold_test runs them.
#include <algorithm>

#include "cpu/device.hpp"
#include "emulated_amx.hpp"
#include "fold_checks.hpp"
#include "plait/cpu_device.hpp"

namespace plait {
namespace {

class AmxFold : public testing::Test {
 protected:
  void SetUp() override {
    auto const isas = supported_isas();
    if (std::ranges::find(isas, CpuIsa::avx512_bf16) == isas.end()) {
      GTEST_SKIP() << "this processor lacks AVX-512 with BF16";
    }
    device_ = cpu::make_device(
        "emulated AMX", [](DType) { return test::emulated_amx_path(); }, 2);
  }

  void check_full_and_causal(test::Case const& shape) {
    test::check_full_and_causal(*device_, DType::bf16, shape);
  }

  std::unique_ptr<Device> device_;
};

TEST_F(AmxFold, RowsAndKeysOfAllKinds) {
  for (auto const& [q_rows, kv_rows] :
       {std::pair<Index, Index>{5, 1}, {16, 33}, {17, 16}, {32, 31}, {33, 513}, {239, 515}, {700, 3}}) {
    check_full_and_causal(
        {.q_rows = q_rows, .kv_rows = kv_rows, .q_heads = 4, .kv_heads = 2, .dim = 32, .value_dim = 32});
  }
}

TEST_F(AmxFold, HeadDimensionsOfAllKinds) {
  for (Index const dim : {1, 3, 31, 33, 40, 64, 111, 128, 192, 512}) {
    check_full_and_causal({.q_rows = 50, .kv_rows = 70, .q_heads = 2, .dim = dim, .value_dim = dim});
  }
  check_full_and_causal({.q_rows = 50, .kv_rows = 70, .q_heads = 2, .dim = 192, .value_dim = 128});
  check_full_and_causal({.q_rows = 50, .kv_rows = 70, .q_heads = 2, .dim = 17, .value_dim = 130});
}

TEST_F(AmxFold, KeysSplitOverThreads) {
  check_full_and_causal({.q_rows = 20, .kv_rows = 5000, .dim = 64, .value_dim = 64});
}

TEST_F(AmxFold, Bands) {
  test::check_bands(*device_, DType::bf16, {.dim = 24, .value_dim = 24});
}

TEST_F(AmxFold, LongSequences) {
  // Several packed blocks, and more tiles than an item takes.
  check_full_and_causal({.q_rows = 2500, .kv_rows = 2500, .dim = 32, .value_dim = 32, .oracle_rows = 64});
  for (Index const dim : {64, 128}) {
    check_full_and_causal({.q_rows = 300,
                           .kv_rows = 4200,
                           .q_heads = 4,
                           .kv_heads = 2,
                           .dim = dim,
                           .value_dim = dim,
                           .oracle_rows = 16});
  }
}

// Scores that grow along the keys: rows' references are raised within a part of the keys and between parts.
TEST_F(AmxFold, ReferencesThatRise) {
  for (float const spread : {2.0f, 3.0f, 5.0f, 30.0f}) {
    check_full_and_causal({.q_rows = 70, .kv_rows = 1100, .dim = 64, .value_dim = 40, .spread = spread});
  }
}

TEST_F(AmxFold, StatesThatAreCarriedAndMerged) {
  test::check_carried_in_any_order(*device_, DType::bf16, {.q_heads = 2, .dim = 40, .value_dim = 24});
  test::check_carried_in_any_order(*device_, DType::bf16,
                                   {.q_heads = 2, .dim = 64, .value_dim = 64, .spread = 3.0f});
  test::check_merged_states(*device_, DType::bf16, {.q_heads = 2, .dim = 40, .value_dim = 24});
  test::check_unseen_rows_stay(*device_, DType::bf16, {.dim = 16, .value_dim = 16});
}

TEST_F(AmxFold, NanInputsShow) {
  test::check_nan_inputs_show(*device_, DType::bf16, {.dim = 16, .value_dim = 16});
}

TEST_F(AmxFold, KeysThatNoRowSeesMayBeNan) {
  test::check_unseen_keys_may_be_nan(*device_, DType::bf16, {.dim = 16, .value_dim = 16});
}

}  // namespace
}  // namespace plait
