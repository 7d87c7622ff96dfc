// The GPU's folds, every kernel and element type, against the fp64 oracle.
#include "fold_checks.hpp"
#include "plait/cuda_device.hpp"

namespace plait {
namespace {

using test::Case;
using test::full;
using test::Keeps;

using Path = std::tuple<CudaKernel, DType>;

class CudaFold : public testing::TestWithParam<Path> {
 protected:
  void SetUp() override {
    if (std::string const reason = cuda_unavailable(); !reason.empty()) GTEST_SKIP() << "no GPU: " << reason;
    CudaDeviceInfo const info = cuda_devices().front();
    if (kernel() == CudaKernel::hopper && info.major != 9) {
      GTEST_SKIP() << "the hopper kernel needs compute capability 9.0, " << info.name << " has " << info.major
                   << '.' << info.minor;
    }
    device_ = make_cuda_device({.index = 0, .kernel = kernel()});
  }
  [[nodiscard]] static CudaKernel kernel() { return std::get<0>(GetParam()); }
  [[nodiscard]] static DType dtype() { return std::get<1>(GetParam()); }
  [[nodiscard]] static bool takes(Case const& shape) {
    return kernel() == CudaKernel::generic ||
           (shape.dim % 8 == 0 && shape.value_dim % 8 == 0 && shape.padding_unit % 8 == 0);
  }

  /// Rows aligned to 16 bytes, and for the kernel that takes it to nothing at all.
  void check(Case shape, std::vector<Band> const& bands, Keeps const& keeps, float scale_factor = 1.0f) {
    for (Index const unit : {8, 1}) {
      shape.padding_unit = unit;
      shape.oracle_rows = 64;
      if (takes(shape)) test::check(*device_, dtype(), shape, bands, keeps, scale_factor);
    }
  }
  void check_full_and_causal(Case const& shape) {
    check(shape, {full(shape)}, [](Index, Index) { return true; });
    Index const shift = shape.kv_rows - shape.q_rows;
    Band causal = full(shape);
    causal.hi = shift;
    check(shape, {causal}, [shift](Index q, Index k) { return k - q <= shift; });
  }
  /// Pairs that some band keeps.
  void check_bands(Case const& shape, std::vector<Band> const& bands) {
    check(shape, bands, [&bands](Index q, Index k) {
      return std::ranges::any_of(bands, [&](Band const& band) { return band.keeps(q, k); });
    });
  }

  std::unique_ptr<Device> device_;
};

TEST_P(CudaFold, ShapesOfAllKinds) {
  for (auto const& [q_rows, kv_rows] : {std::pair<Index, Index>{1, 1},
                                        {1, 3},
                                        {2, 1},
                                        {511, 1},
                                        {3, 513},
                                        {239, 1},
                                        {799, 3},
                                        {113, 203},
                                        {108, 256},
                                        {1023, 1024},
                                        {1024, 1023}}) {
    check_full_and_causal({.q_rows = q_rows, .kv_rows = kv_rows, .q_heads = 4, .kv_heads = 2});
  }
}

TEST_P(CudaFold, HeadDimensionsOfAllKinds) {
  for (Index const dim : {1, 8, 40, 59, 64, 96, 111, 128, 192, 256}) {
    check_full_and_causal({.q_rows = 150, .kv_rows = 190, .q_heads = 2, .dim = dim, .value_dim = dim});
  }
  for (auto const& [dim, value_dim] :
       {std::pair<Index, Index>{192, 128}, {64, 128}, {128, 64}, {17, 130}, {256, 8}}) {
    check_full_and_causal({.q_rows = 150, .kv_rows = 190, .q_heads = 2, .dim = dim, .value_dim = value_dim});
  }
}

TEST_P(CudaFold, HeadsInGroupsAndBatches) {
  for (auto const& [q_heads, kv_heads] : {std::pair<Index, Index>{3, 3}, {6, 2}, {8, 1}}) {
    for (Index const spare_heads : {0, 1}) {  // with spares: a slice of a larger tensor's heads
      check_full_and_causal({.q_rows = 150,
                             .kv_rows = 260,
                             .q_heads = q_heads,
                             .kv_heads = kv_heads,
                             .dim = 128,
                             .value_dim = 128,
                             .batch = 2,
                             .spare_heads = spare_heads});
    }
  }
}

TEST_P(CudaFold, BandsThatShareRowsAndBandsThatDoNot) {
  for (Index const dim : {64, 128}) {
    test::check_bands(*device_, dtype(),
                      {.dim = dim, .value_dim = dim, .padding_unit = 8, .oracle_rows = 100});
  }
}

TEST_P(CudaFold, WindowsAndDocuments) {
  Case const shape{.q_rows = 500, .kv_rows = 500, .q_heads = 2, .dim = 128, .value_dim = 128};
  Band window = full(shape);
  window.lo = -90;
  window.hi = 20;
  check_bands(shape, {window});
  window.lo = -3;  // narrower than any block of keys
  window.hi = 0;
  check_bands(shape, {window});
  std::vector<Band> documents;
  Index begin = 0;
  for (Index const end : {1, 64, 130, 131, 390, 500}) {
    documents.push_back({.q = {begin, end}, .kv = {begin, end}, .hi = 0});
    begin = end;
  }
  check_bands(shape, documents);
}

/// A band whose last keys some warps' rows see all, half or none of, before keys that all rows see.
TEST_P(CudaFold, BlocksSeenInPart) {
  for (Index const dim : {64, 128}) {  // tiles of 192 and of 128 rows
    Case const shape{.q_rows = 192, .kv_rows = 512, .dim = dim, .value_dim = dim};
    for (Index const reach : {60, 64, 65, 68, 100, 127, 128, 129, 132, 192, 193}) {
      SCOPED_TRACE(testing::Message() << "D " << dim << ", reach " << reach);
      Band band = full(shape);
      band.kv = {0, 256};
      band.hi = reach;
      Band rest = full(shape);
      rest.kv = {256, 512};
      check_bands(shape, {band, rest});
      check_bands(shape, {band});
    }
  }
}

/// More tiles than multiprocessors, each long enough to be a block's only one.
TEST_P(CudaFold, BlocksThatTakeTurnsBesideTransfers) {
  for (Index const q_rows : {100, 200}) {  // 200: in pairs, where there are some
    test::check(*device_, dtype(),
                {.q_rows = q_rows,
                 .kv_rows = 24'000,
                 .q_heads = 150,
                 .dim = 128,
                 .value_dim = 128,
                 .padding_unit = 8,
                 .oracle_rows = 1,
                 .beside_transfers = true},
                {Band{.q = {0, q_rows}, .kv = {0, 24'000}}}, [](Index, Index) { return true; });
  }
}

TEST_P(CudaFold, RandomBands) {
  std::mt19937 random(11);
  auto const draw = [&](Index low, Index high) {
    return std::uniform_int_distribution<Index>(low, high)(random);
  };
  for (int trial = 0; trial < 12; ++trial) {
    Index const dim = trial % 2 == 0 ? 64 : 128;
    Case const shape{.q_rows = draw(1, 400), .kv_rows = draw(20, 600), .dim = dim, .value_dim = dim};
    std::vector<Band> bands;
    for (Index begin = 0; begin < shape.kv_rows;) {  // side by side, so that none overlap
      Index const end = std::min(begin + draw(1, 250), shape.kv_rows);
      Index const first = draw(0, shape.q_rows - 1);
      Index const lo = draw(-400, 300);
      bands.push_back(
          {.q = {first, draw(first, shape.q_rows)}, .kv = {begin, end}, .lo = lo, .hi = lo + draw(0, 500)});
      begin = end;
    }
    SCOPED_TRACE(trial);
    check_bands(shape, bands);
  }
}

/// Few rows over many keys: decoding steps, a chunk of a prefill, few tiles of uneven length, rows without a
/// key.
TEST_P(CudaFold, FewTilesAreSplitByKeys) {
  auto const check_split = [&](Case shape, std::vector<Band> const& bands) {
    shape.padding_unit = 8;
    shape.oracle_rows = 40;
    test::Tensors tensors(*device_, dtype(), shape, 7);
    test::GuardedState state(*device_, shape);
    EXPECT_NE(
        test::fold(*device_, tensors, bands, {0, shape.kv_rows}, state.view(), Start::identity).find("parts"),
        std::string::npos)
        << test::describe(shape);
    test::check(*device_, dtype(), shape, bands, [&bands](Index q, Index k) {
      return std::ranges::any_of(bands, [&](Band const& band) { return band.keeps(q, k); });
    });
  };
  for (auto const& [dim, value_dim] :
       {std::pair<Index, Index>{64, 64}, {128, 128}, {256, 256}, {192, 128}, {40, 24}}) {
    for (Index const q_rows : {1, 130}) {
      Case const shape{.q_rows = q_rows,
                       .kv_rows = 9000,
                       .q_heads = 8,
                       .kv_heads = 2,
                       .dim = dim,
                       .value_dim = value_dim,
                       .batch = q_rows == 1 ? 2 : 1};
      check_split(shape, {full(shape)});
    }
  }
  Case shape{.q_rows = 1000, .kv_rows = 9000, .dim = 128, .value_dim = 128};
  Band causal = full(shape);
  causal.hi = 8000;
  check_split(shape, {causal});
  causal.q = {200, 700};
  check_split(shape, {causal});  // rows before and after see nothing
  check_split(shape, {Band{.q = {0, 300}, .kv = {0, 8000}},
                      Band{.q = {300, 1000}, .kv = {6000, 9000}, .lo = 5500, .hi = 8000}});
  test::check_carried_in_any_order(
      *device_, dtype(), {.q_heads = 2, .dim = 128, .value_dim = 128, .padding_unit = 8, .oracle_rows = 70},
      40);
}

TEST_P(CudaFold, LargeLogitsStayFinite) {
  // Scores up to about ±1e4: one key takes all of the weight.
  check_full_and_causal({.q_rows = 100, .kv_rows = 300, .dim = 64, .value_dim = 16, .spread = 30.0f});
}

TEST_P(CudaFold, AnyScale) {
  Case const shape{.q_rows = 100, .kv_rows = 150, .dim = 64, .value_dim = 64};
  Band causal = full(shape);
  causal.hi = 50;
  for (float const factor : {-1.0f, 0.0f, 1e-3f, 20.0f}) {
    SCOPED_TRACE(factor);
    check(
        shape, {causal}, [](Index q, Index k) { return k - q <= 50; }, factor);
  }
}

TEST_P(CudaFold, CarriedFoldsInAnyOrderEqualOneFold) {
  for (Index const dim : {40, 128, 256}) {
    test::check_carried_in_any_order(
        *device_, dtype(),
        {.q_heads = 2, .dim = dim, .value_dim = dim, .padding_unit = 8, .oracle_rows = 70});
  }
}

TEST_P(CudaFold, QueuedFoldsKeepTheirOrder) {
  for (Index const dim : {64, 128, 256}) {
    for (Index const q_rows : {150, 3000}) {  // fewer tiles than multiprocessors, and more
      test::check_queued_folds(*device_, dtype(),
                               {.q_rows = q_rows,
                                .kv_rows = 3100,
                                .q_heads = 8,
                                .kv_heads = 4,
                                .dim = dim,
                                .value_dim = dim,
                                .padding_unit = 8,
                                .oracle_rows = 20});
    }
  }
}

/// Few rows, so that each fold's keys are split: parts, joins and the parts of the next fold overlap, in one
/// scratch.
TEST_P(CudaFold, QueuedFoldsOfPartsKeepTheirOrder) {
  test::check_queued_folds(
      *device_, dtype(),
      {.q_rows = 150, .kv_rows = 120'000, .dim = 128, .value_dim = 128, .padding_unit = 8, .oracle_rows = 4});
}

TEST_P(CudaFold, MergedStatesEqualOneFold) {
  test::check_merged_states(*device_, dtype(), {.q_heads = 2, .dim = 40, .value_dim = 24, .padding_unit = 8});
}

TEST_P(CudaFold, CarriedRowsThatSeeNoKeyStayBitForBit) {
  for (Index const dim : {16, 128}) {
    test::check_unseen_rows_stay(*device_, dtype(), {.dim = dim, .value_dim = dim, .padding_unit = 8});
  }
}

TEST_P(CudaFold, KeysThatNoRowSeesMayBeNan) {
  if (kernel() == CudaKernel::hopper) {
    GTEST_SKIP()
        << "in a block that it visits, the hopper kernel multiplies unseen values by 0 (README, Limits)";
  }
  test::check_unseen_keys_may_be_nan(*device_, dtype(), {.dim = 16, .value_dim = 16, .padding_unit = 8});
}

TEST_P(CudaFold, NanInputsShow) {
  for (Index const dim : {16, 64, 128, 256}) {
    SCOPED_TRACE(dim);
    Case const shape{.kv_rows = 600, .dim = dim, .value_dim = dim, .padding_unit = 8};
    test::check_nan_inputs_show(*device_, dtype(), shape);
  }
}

TEST_P(CudaFold, NoBandsAtAll) {
  Case const shape{.q_rows = 200, .kv_rows = 50, .q_heads = 2, .dim = 64, .value_dim = 64, .padding_unit = 8};
  check_bands(shape, {});
  // Carried: left alone, or finished as it is.
  test::Tensors tensors(*device_, dtype(), shape, 3);
  test::GuardedState state(*device_, shape);
  Band const all = full(shape);
  test::fold(*device_, tensors, std::span(&all, 1), {0, 50}, state.view(), Start::identity);
  std::vector<float> const before = state.floats();
  test::fold(*device_, tensors, {}, {0, 50}, state.view(), Start::carried);
  test::expect_same_bits(before, state.floats());
  test::fold(*device_, tensors, {}, {0, 50}, state.view(), Start::carried, tensors.output(*device_));
  test::expect_oracle(*device_, shape, tensors, [](Index, Index) { return true; });
}

TEST_P(CudaFold, RepeatsBitForBit) {
  Case const shape{.q_rows = 1000,
                   .kv_rows = 900,
                   .q_heads = 4,
                   .kv_heads = 2,
                   .dim = 128,
                   .value_dim = 128,
                   .padding_unit = 8};
  Band causal = full(shape);
  causal.hi = 0;
  test::Tensors tensors(*device_, dtype(), shape, 5);
  std::vector<float> first;
  for (int repeat = 0; repeat < 50; ++repeat) {
    test::GuardedState state(*device_, shape);
    test::fold(*device_, tensors, std::span(&causal, 1), {0, 600}, state.view(), Start::identity);
    test::fold(*device_, tensors, std::span(&causal, 1), {600, 900}, state.view(), Start::carried);
    if (repeat == 0) first = state.floats();
    test::expect_same_bits(first, state.floats());
    if (HasFailure()) FAIL() << "repeat " << repeat;
  }
}

/// Rows of q, k, v and out lie 2^26 elements apart in one piece of memory: offsets pass 2^31 elements.
TEST_P(CudaFold, OffsetsBeyond32Bits) {
  constexpr Index rows = 40;
  constexpr Index dim = 64;
  constexpr Index row_stride = (Index{1} << 26) + 256;
  std::unique_ptr<DeviceMemory> memory;
  try {
    memory = device_->allocate(static_cast<std::size_t>(rows * row_stride) * size_bytes(dtype()));
  } catch (std::bad_alloc const&) {
    GTEST_SKIP() << "too little memory";
  }
  Case const shape{.q_rows = rows, .kv_rows = rows, .padding_unit = 8};
  test::Tensors tensors(*device_, dtype(), shape, 13);
  std::size_t const row_bytes = dim * size_bytes(dtype());
  auto const far = [&](Index column) {
    return MutableTensorView{memory->data() + column * static_cast<Index>(size_bytes(dtype())),
                             dtype(),
                             1,
                             rows,
                             1,
                             dim,
                             rows * row_stride,
                             row_stride,
                             dim};
  };
  MutableTensorView const q = far(0), k = far(dim), v = far(2 * dim), out = far(3 * dim);
  for (auto const& [from, to] :
       {std::pair(tensors.q.view(), q), {tensors.k.view(), k}, {tensors.v.view(), v}}) {
    for (Index row = 0; row < rows; ++row) {
      device_->upload({static_cast<std::byte const*>(from.at(0, row, 0)), row_bytes},
                      static_cast<std::byte*>(to.at(0, row, 0)));
    }
  }
  Band const all = full(shape);
  auto const plan = device_->prepare({.q = {0, rows},
                                      .kv = {0, rows},
                                      .bands = std::span(&all, 1),
                                      .dtype = dtype(),
                                      .head_dim = dim,
                                      .value_dim = dim,
                                      .finishes = true});
  test::GuardedState state(*device_, shape);
  (void)tensors.out.on(*device_);
  Output const output{
      .out = out, .lse = tensors.lse.data(), .lse_batch_stride = rows, .lse_head_stride = rows};
  device_->fold(*plan,
                {.q = q, .k = k, .v = v, .state = state.view(), .scale = tensors.scale, .output = output});
  MutableTensorView const near = tensors.out.on(*device_);
  std::vector<std::byte> row_of_out(row_bytes);
  for (Index row = 0; row < rows; ++row) {
    device_->download(static_cast<std::byte const*>(out.at(0, row, 0)), row_of_out);
    device_->upload(row_of_out, static_cast<std::byte*>(near.at(0, row, 0)));
  }
  test::expect_oracle(*device_, shape, tensors, [](Index, Index) { return true; });
}

std::vector<Path> paths() {
  return {{CudaKernel::generic, DType::f32},
          {CudaKernel::generic, DType::f16},
          {CudaKernel::generic, DType::bf16},
          {CudaKernel::hopper, DType::f16},
          {CudaKernel::hopper, DType::bf16}};
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaFold, testing::ValuesIn(paths()), [](auto const& path) {
  return std::string(name(std::get<0>(path.param))) + '_' + std::string(name(std::get<1>(path.param)));
});

TEST(CudaDevice, RefusesWhatItCannotDoByName) {
  if (std::string const reason = cuda_unavailable(); !reason.empty()) GTEST_SKIP() << "no GPU: " << reason;
  auto const device = make_cuda_device();
  try {
    (void)device->prepare({.q = {0, 1}, .kv = {0, 1}, .bands = {}, .head_dim = 257, .value_dim = 64});
    FAIL() << "nothing was thrown";
  } catch (Unsupported const& error) {
    EXPECT_NE(std::string(error.what()).find("257"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace plait
