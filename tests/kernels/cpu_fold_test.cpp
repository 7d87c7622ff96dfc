// The CPU's folds, every path and element type, against the fp64 oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "oracle.hpp"
#include "plait/cpu_device.hpp"

namespace plait {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

struct Case {
  Index q_rows = 1;
  Index kv_rows = 1;
  Index q_heads = 1;
  Index kv_heads = 1;
  Index dim = 64;
  Index value_dim = 64;
  Index batch = 1;
  float spread = 1.0f;  ///< standard deviation of q and k
};

/// A tensor whose rows are followed by padding that holds NaN: reading it shows.
class Padded {
 public:
  Padded(DType dtype, Index batch, Index rows, Index heads, Index dim, Index padding)
      : bytes_(static_cast<std::size_t>(batch * rows * (heads * dim + padding)) * size_bytes(dtype)),
        view_{bytes_.data(),         dtype, batch, rows, heads, dim, rows * (heads * dim + padding),
              heads * dim + padding, dim} {
    for (Index i = 0; i < batch * rows * (heads * dim + padding); ++i) store(dtype, bytes_.data(), i, nan);
  }
  void fill(std::mt19937& random, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    for (Index b = 0; b < view_.batch; ++b) {
      for (Index row = 0; row < view_.rows; ++row) {
        for (Index i = 0; i < view_.heads * view_.dim; ++i)
          store(view_.dtype, view_.at(b, row, 0), i, normal(random));
      }
    }
  }
  [[nodiscard]] MutableTensorView view() const { return view_; }
  [[nodiscard]] std::vector<std::byte> const& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  MutableTensorView view_;
};

/// A state between canaries.
class GuardedState {
 public:
  GuardedState(Case const& shape)
      : bytes_(state_bytes(shape.batch, shape.q_heads, shape.q_rows, shape.value_dim)),
        memory_(bytes_ / sizeof(float) + 2 * guard, canary),
        view_(state_view(memory_.data() + guard, shape.batch, shape.q_heads, shape.q_rows, shape.value_dim)) {
  }

  [[nodiscard]] StateView view() const { return view_; }
  [[nodiscard]] std::vector<float> const& memory() const { return memory_; }
  void expect_guarded() const {
    for (std::size_t i = 0; i < guard; ++i) {
      ASSERT_EQ(memory_[i], canary);
      ASSERT_EQ(memory_[memory_.size() - 1 - i], canary);
    }
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr float canary = 12345.0f;
  std::size_t bytes_;
  std::vector<float> memory_;
  StateView view_;
};

using Path = std::tuple<CpuIsa, DType>;

class CpuFold : public testing::TestWithParam<Path> {
 protected:
  CpuFold() : device_(make_cpu_device({.threads = 1, .isa = isa()})) {}
  [[nodiscard]] static CpuIsa isa() { return std::get<0>(GetParam()); }
  [[nodiscard]] static DType dtype() { return std::get<1>(GetParam()); }

  struct Tensors {
    Tensors(Case const& shape, std::uint32_t seed)
        : q(dtype(), shape.batch, shape.q_rows, shape.q_heads, shape.dim, 3),
          k(dtype(), shape.batch, shape.kv_rows, shape.kv_heads, shape.dim, 5),
          v(dtype(), shape.batch, shape.kv_rows, shape.kv_heads, shape.value_dim, 1),
          out(dtype(), shape.batch, shape.q_rows, shape.q_heads, shape.value_dim, 2),
          lse(static_cast<std::size_t>(shape.batch * shape.q_heads * shape.q_rows), nan),
          scale(1.0f / std::sqrt(static_cast<float>(shape.dim))) {
      std::mt19937 random(seed);
      q.fill(random, shape.spread);
      k.fill(random, shape.spread);
      v.fill(random, 1.0f);
    }
    Padded q, k, v, out;
    std::vector<float> lse;
    float scale;
  };

  void fold(Device& device, Tensors const& tensors, std::vector<Band> const& bands, Slice keys,
            StateView state, Start start) const {
    MutableTensorView const q = tensors.q.view();
    auto const plan = device.prepare({.q = {0, q.rows},
                                      .kv = keys,
                                      .bands = bands,
                                      .dtype = q.dtype,
                                      .head_dim = q.dim,
                                      .value_dim = tensors.v.view().dim});
    device.fold(*plan, {.q = q,
                        .k = tensors.k.view().rows_of(keys),
                        .v = tensors.v.view().rows_of(keys),
                        .state = state,
                        .start = start,
                        .scale = tensors.scale});
  }

  void finish(Device& device, Tensors& tensors, StateView state) const {
    device.finish(state, {.out = tensors.out.view(),
                          .lse = tensors.lse.data(),
                          .lse_batch_stride = state.heads * state.rows,
                          .lse_head_stride = state.rows});
  }

  static void expect_oracle(Case const& shape, Tensors const& tensors,
                            std::function<bool(Index, Index)> keeps) {
    OracleInput input{.q = tensors.q.view(),
                      .kv_tokens = shape.kv_rows,
                      .kv_heads = shape.kv_heads,
                      .value_dim = shape.value_dim,
                      .keys = [&](Slice slice) { return tensors.k.view().rows_of(slice); },
                      .values = [&](Slice slice) { return tensors.v.view().rows_of(slice); },
                      .keeps = std::move(keeps),
                      .scale = static_cast<double>(tensors.scale)};
    for (Index row = 0; row < shape.q_rows; ++row) input.q_positions.push_back(row);
    OracleResult const oracle = compute_oracle(input);
    Difference const out = compare_out(oracle, tensors.out.view());
    Difference const lse = compare_lse(oracle, tensors.lse);
    EXPECT_LE(out.max_abs_error, out_tolerance(oracle).value()) << describe(out);
    EXPECT_LE(lse.max_abs_error, lse_tolerance(oracle).value()) << describe(lse);
    for (Index b = 0; b < shape.batch; ++b) {  // the padding is untouched
      for (Index row = 0; row < shape.q_rows; ++row) {
        MutableTensorView const view = tensors.out.view();
        for (Index i = view.heads * view.dim; i < view.row_stride; ++i) {
          ASSERT_TRUE(std::isnan(load(dtype(), view.at(b, row, 0), i)));
        }
      }
    }
  }

  /// One fold of everything, judged.
  void check(Case const& shape, std::vector<Band> const& bands, std::function<bool(Index, Index)> keeps) {
    SCOPED_TRACE(testing::Message() << shape.q_rows << " × " << shape.kv_rows << " rows, " << shape.q_heads
                                    << ':' << shape.kv_heads << " heads, D " << shape.dim << ", Dv "
                                    << shape.value_dim);
    Tensors tensors(shape, 7);
    GuardedState state(shape);
    fold(*device_, tensors, bands, {0, shape.kv_rows}, state.view(), Start::identity);
    state.expect_guarded();
    finish(*device_, tensors, state.view());
    expect_oracle(shape, tensors, std::move(keeps));
  }

  void check_full_and_causal(Case const& shape) {
    check(shape, {full(shape)}, [](Index, Index) { return true; });
    Index const shift = shape.kv_rows - shape.q_rows;
    Band causal = full(shape);
    causal.hi = shift;
    check(shape, {causal}, [shift](Index q, Index k) { return k - q <= shift; });
  }

  static Band full(Case const& shape) { return {.q = {0, shape.q_rows}, .kv = {0, shape.kv_rows}}; }

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
  Case const shape{.q_rows = 300, .kv_rows = 400, .dim = 32, .value_dim = 32};
  // Attention sink and window: two bands over the same rows; and rows 250 to 299 see nothing.
  std::vector<Band> const bands{{.q = {0, 250}, .kv = {0, 10}},
                                {.q = {0, 250}, .kv = {10, 400}, .lo = 30, .hi = 77}};
  auto const keeps = [](Index q, Index k) { return q < 250 && (k < 10 || (30 <= k - q && k - q <= 77)); };
  check(shape, bands, keeps);
  // A chequerboard of blocks.
  std::vector<Band> blocks;
  for (Index q = 0; q < 300; q += 50) {
    for (Index k = 0; k < 400; k += 40) {
      if ((q / 50 + k / 40) % 2 == 0) blocks.push_back({.q = {q, q + 50}, .kv = {k, k + 40}});
    }
  }
  check(shape, blocks, [](Index q, Index k) { return (q / 50 + k / 40) % 2 == 0; });
}

TEST_P(CpuFold, LargeLogitsStayFinite) {
  // Scores up to about ±1e4: one key takes all of the weight.
  check_full_and_causal({.q_rows = 64, .kv_rows = 300, .dim = 64, .value_dim = 16, .spread = 30.0f});
}

TEST_P(CpuFold, CarriedFoldsInAnyOrderEqualOneFold) {
  Case const shape{.q_rows = 210, .kv_rows = 330, .q_heads = 2, .dim = 40, .value_dim = 24};
  Band causal = full(shape);
  causal.hi = 120;
  for (std::vector<Slice> const& order :
       {std::vector<Slice>{{0, 100}, {100, 101}, {101, 330}}, {{101, 330}, {0, 100}, {100, 101}}}) {
    Tensors tensors(shape, 7);
    GuardedState state(shape);
    Start start = Start::identity;
    for (Slice const keys : order) {
      fold(*device_, tensors, {causal}, keys, state.view(), start);
      start = Start::carried;
    }
    state.expect_guarded();
    finish(*device_, tensors, state.view());
    expect_oracle(shape, tensors, [](Index q, Index k) { return k - q <= 120; });
  }
}

TEST_P(CpuFold, MergedStatesEqualOneFold) {
  Case const shape{.q_rows = 90, .kv_rows = 200, .q_heads = 2, .dim = 40, .value_dim = 24};
  Band causal = full(shape);
  causal.hi = 50;
  Tensors tensors(shape, 9);
  GuardedState left(shape);
  GuardedState right(shape);
  GuardedState all(shape);
  fold(*device_, tensors, {causal}, {0, 80}, left.view(), Start::identity);
  fold(*device_, tensors, {causal}, {80, 200}, right.view(),
       Start::identity);  // the first rows see none of these
  device_->merge(left.view(), all.view(), Start::identity);
  EXPECT_EQ(left.memory(), all.memory());
  device_->merge(right.view(), all.view(), Start::carried);
  all.expect_guarded();
  finish(*device_, tensors, all.view());
  expect_oracle(shape, tensors, [](Index q, Index k) { return k - q <= 50; });
}

TEST_P(CpuFold, CarriedRowsThatSeeNoKeyStayBitForBit) {
  Case const shape{.q_rows = 100, .kv_rows = 60, .dim = 16, .value_dim = 16};
  Tensors tensors(shape, 3);
  GuardedState state(shape);
  fold(*device_, tensors, {full(shape)}, {0, 60}, state.view(), Start::identity);
  std::vector<float> const before = state.memory();
  std::vector<Band> const some{{.q = {20, 50}, .kv = {0, 60}}};
  fold(*device_, tensors, some, {0, 60}, state.view(), Start::carried);
  StateView const view = state.view();
  Index changed = 0;
  for (Index row = 0; row < shape.q_rows; ++row) {
    auto const offset = static_cast<std::size_t>(view.o + row * 16 - state.memory().data());
    bool const same =
        std::memcmp(before.data() + offset, state.memory().data() + offset, 16 * sizeof(float)) == 0;
    EXPECT_EQ(same, row < 20 || row >= 50) << row;
    changed += same ? 0 : 1;
  }
  EXPECT_EQ(changed, 30);
}

TEST_P(CpuFold, RepeatsBitForBitOnAnyNumberOfThreads) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "libgomp is not instrumented: ThreadSanitizer does not see how it orders its threads";
#endif
  Case const shape{.q_rows = 500, .kv_rows = 300, .q_heads = 4, .kv_heads = 2, .dim = 32, .value_dim = 48};
  Band causal = full(shape);
  causal.hi = 0;
  std::vector<std::vector<float>> results;
  for (int const threads : {1, 3, 3}) {
    auto const device = make_cpu_device({.threads = threads, .isa = isa()});
    Tensors tensors(shape, 5);
    GuardedState state(shape);
    fold(*device, tensors, {causal}, {0, 300}, state.view(), Start::identity);
    fold(*device, tensors, {causal}, {0, 300}, state.view(), Start::carried);
    results.push_back(state.memory());
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(results[1].data(), results[2].data(), results[0].size() * sizeof(float)), 0);
}

/// What no row of a fold sees is not read into it: keys after the last diagonal may hold anything.
TEST_P(CpuFold, KeysThatNoRowSeesMayBeNan) {
  Case const shape{.q_rows = 64, .kv_rows = 100, .dim = 16, .value_dim = 16};
  Tensors tensors(shape, 3);
  for (Index row = 70; row < 100; ++row) {
    for (Index d = 0; d < 16; ++d) {
      store(dtype(), tensors.k.view().at(0, row, 0), d, nan);
      store(dtype(), tensors.v.view().at(0, row, 0), d, nan);
    }
  }
  GuardedState state(shape);
  Band causal = full(shape);
  causal.hi = 6;  // the last row sees keys 0 to 69
  fold(*device_, tensors, {causal}, {0, 100}, state.view(), Start::identity);
  finish(*device_, tensors, state.view());
  for (Index row = 0; row < 64; ++row) {
    for (Index d = 0; d < 16; ++d) {
      ASSERT_TRUE(std::isfinite(load(dtype(), tensors.out.view().at(0, row, 0), d))) << row;
    }
  }
}

TEST_P(CpuFold, NanInputsShow) {
  Case const shape{.q_rows = 10, .kv_rows = 40, .dim = 16, .value_dim = 16};
  Tensors tensors(shape, 3);
  store(dtype(), tensors.q.view().at(0, 4, 0), 2, nan);
  GuardedState state(shape);
  fold(*device_, tensors, {full(shape)}, {0, 40}, state.view(), Start::identity);
  finish(*device_, tensors, state.view());
  for (Index row = 0; row < 10; ++row) {
    EXPECT_EQ(std::isnan(load(dtype(), tensors.out.view().at(0, row, 0), 0)), row == 4) << row;
  }
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
  auto const device = make_cpu_device({.threads = 1});
  std::vector<float> out(2 * 3 * 4, nan);
  std::vector<float> lse(2 * 3, nan);
  StateView const identity{.batch = 1, .heads = 3, .rows = 2, .value_dim = 4};
  device->finish(identity, {.out = dense<void>(out.data(), DType::f32, 1, 2, 3, 4),
                            .lse = lse.data(),
                            .lse_batch_stride = 6,
                            .lse_head_stride = 2});
  EXPECT_EQ(out, std::vector<float>(out.size(), 0.0f));
  EXPECT_EQ(lse, std::vector<float>(lse.size(), -infinity));
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
  EXPECT_NE(message.find("PLAIT_CPU_ISA=mmx: must be scalar, avx2 or avx512; this processor has scalar"),
            std::string::npos)
      << message;
}

}  // namespace
}  // namespace plait
