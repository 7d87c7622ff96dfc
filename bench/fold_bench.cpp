// How fast folds are on the CPU, as a share of what bounds them, measured in the same process: the
// multiply-add peak of the type and instruction set, or, for few queries, the rate at which memory can be
// read.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cmath>
#include <iostream>
#include <random>
#include <vector>

#include "device_case.hpp"
#include "oracle.hpp"
#include "peak.hpp"
#include "plait/cpu_device.hpp"
#include "plait/cuda_device.hpp"

namespace {

using namespace plait;
namespace po = boost::program_options;

struct Setting {
  Index queries = 2048;
  Index tokens = 2048;
  Index heads = 4;
  Index kv_heads = 4;
  Index dim = 128;
  Index value_dim = 128;
  DType dtype = DType::f32;
  bool causal = false;
  CpuIsa isa = CpuIsa::scalar;
  int threads = 1;
  int repeat = 9;
};

/// In the device's memory, which begins at a multiple of 64 bytes: so do the tensors of a run, and PyTorch's.
std::unique_ptr<DeviceMemory> random_tensor(Device& device, DType dtype, Index count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  auto memory = device.allocate(static_cast<std::size_t>(count) * size_bytes(dtype));
  for (Index i = 0; i < count; ++i) store(dtype, memory->data(), i, normal(random));
  return memory;
}

/// The inputs of one setting, and a fold of them.
class FoldRun {
 public:
  explicit FoldRun(Setting const& setting)
      : setting_(setting), device_(make_cpu_device({.threads = setting.threads, .isa = setting.isa})) {
    std::mt19937 random(1);
    Index const n = setting.tokens;
    q_ = random_tensor(*device_, setting.dtype, setting.queries * setting.heads * setting.dim, random);
    k_ = random_tensor(*device_, setting.dtype, n * setting.kv_heads * setting.dim, random);
    v_ = random_tensor(*device_, setting.dtype, n * setting.kv_heads * setting.value_dim, random);
    band_ = {.q = {0, setting.queries}, .kv = {0, n}};
    if (setting.causal) band_.hi = n - setting.queries;
    plan_ = device_->prepare({.q = {0, setting.queries},
                              .kv = {0, n},
                              .bands = std::span(&band_, 1),
                              .dtype = setting.dtype,
                              .head_dim = setting.dim,
                              .value_dim = setting.value_dim});
    memory_ = device_->allocate(state_bytes(1, setting.heads, setting.queries, setting.value_dim));
  }

  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(area(band_) * setting_.heads * (setting_.dim + setting_.value_dim));
  }

  /// Of keys and values, read once.
  [[nodiscard]] double bytes() const { return static_cast<double>(k_->bytes() + v_->bytes()); }

  double seconds() {
    auto const start = std::chrono::steady_clock::now();
    device_->fold(*plan_, {.q = q(), .k = k(), .v = v(), .state = state(), .scale = scale()});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  /// Of 32 rows spread over the sequence, those with an element beyond the oracle's tolerance for all of
  /// them.
  Index wrong_rows() {
    Index const n = setting_.queries;
    std::vector<std::byte> out(static_cast<std::size_t>(n * setting_.heads * setting_.value_dim) *
                               size_bytes(setting_.dtype));
    auto const all = dense<void>(out.data(), setting_.dtype, 1, n, setting_.heads, setting_.value_dim);
    device_->finish(state(), {.out = all});
    Index const rows = std::min<Index>(32, n);
    OracleInput input{.q = every(q(), n / rows, rows),
                      .kv_tokens = setting_.tokens,
                      .kv_heads = setting_.kv_heads,
                      .value_dim = setting_.value_dim,
                      .keys = [&](Slice slice) { return k().rows_of(slice); },
                      .values = [&](Slice slice) { return v().rows_of(slice); },
                      .keeps = [&](Index at, Index key) { return band_.keeps(at, key); },
                      .scale = static_cast<double>(scale())};
    for (Index i = 0; i < rows; ++i) input.q_positions.push_back(i * (n / rows));
    OracleResult const oracle = compute_oracle(input);
    double const tolerance = out_tolerance(oracle).value();
    TensorView const found = every(all, n / rows, rows);
    Index wrong = 0;
    for (Index row = 0; row < rows; ++row) {
      bool right = true;  // and not "no error is too large": a NaN is wrong too
      for (Index i = 0; i < setting_.heads * setting_.value_dim; ++i) {
        double const expected =
            oracle.out[static_cast<std::size_t>(row * setting_.heads * setting_.value_dim + i)];
        right = right && std::abs(load(setting_.dtype, found.at(0, row, 0), i) - expected) <= tolerance;
      }
      wrong += right ? 0 : 1;
    }
    return wrong;
  }

 private:
  /// Rows 0, step, 2 · step, … of a view.
  [[nodiscard]] static TensorView every(TensorView view, Index step, Index rows) {
    view.rows = rows;
    view.row_stride *= step;
    return view;
  }
  [[nodiscard]] float scale() const { return 1.0f / std::sqrt(static_cast<float>(setting_.dim)); }
  [[nodiscard]] TensorView q() const {
    return dense<void const>(q_->data(), setting_.dtype, 1, setting_.queries, setting_.heads, setting_.dim);
  }
  [[nodiscard]] TensorView k() const {
    return dense<void const>(k_->data(), setting_.dtype, 1, setting_.tokens, setting_.kv_heads, setting_.dim);
  }
  [[nodiscard]] TensorView v() const {
    return dense<void const>(v_->data(), setting_.dtype, 1, setting_.tokens, setting_.kv_heads,
                             setting_.value_dim);
  }
  [[nodiscard]] StateView state() const {
    return state_view(memory_->data(), 1, setting_.heads, setting_.queries, setting_.value_dim);
  }

  Setting setting_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceMemory> q_, k_, v_;
  Band band_;
  std::unique_ptr<FoldPlan> plan_;
  std::unique_ptr<DeviceMemory> memory_;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Prints one row; returns the number of wrong rows. A run and its bound are measured in turn, and the share
/// is the median of the shares: neighbours on the machine slow both.
Index bench(Setting const& setting, MemoryReader& memory) {
  FoldRun run(setting);
  (void)run.seconds();                                                           // warm
  bool const reads = setting.queries * (setting.heads / setting.kv_heads) <= 8;  // bound by memory
  double const work = reads ? run.bytes() : run.flops();
  std::vector<double> times, bounds, shares;
  for (int i = 0; i < setting.repeat; ++i) {
    double const bound = reads
                             ? memory.bytes_per_second()
                             : multiply_flops_per_second(setting.isa, setting.dtype, 0.02) * setting.threads;
    times.push_back(run.seconds());
    bounds.push_back(bound);
    shares.push_back(work / times.back() / bound);
  }
  Index const wrong = run.wrong_rows();
  auto const [low, high] = std::ranges::minmax(times);
  fmt::print(
      "{:>11} {:>5} {:>4} {:>4} {:>7} {:>7} {:>7} {:>8.2f} {:>8.2f} {:>8.2f} {:>8.1f} {:>8.1f} {:>7} "
      "{:>6.1f}% {:>7}\n",
      name(setting.isa), name(setting.dtype), setting.dim, setting.value_dim, setting.queries, setting.tokens,
      setting.causal ? "causal" : "full", low * 1e3, median(times) * 1e3, high * 1e3,
      work / median(times) * 1e-9, median(bounds) * 1e-9, reads ? "GB/s" : "GFLOP/s", 100.0 * median(shares),
      wrong);
  return wrong;
}

template <class Value>
std::vector<Value> chosen(std::string const& asked, std::vector<Value> const& all, std::string const& flag) {
  if (asked.empty()) return all;
  for (Value const value : all) {
    if (name(value) == asked) return {value};
  }
  std::string names;
  for (Value const value : all) names += fmt::format(" {}", name(value));
  throw po::error(fmt::format("--{} {}: must be one of{}", flag, asked, names));
}

int run(int argc, char** argv) {
  Setting base;
  std::string isa, dtype, mask, device;
  Index dim = 0;
  po::options_description flags(
      "Times folds, and shares of the bound measured in between: the multiply-add peak of the type and "
      "path,\n"
      "or, where at most 8 rows share the keys, the rate of reading memory.\n"
      "Without --dim, --dtype, --mask or --isa: all of them at D 128 and 64");
  flags.add_options()("help", "print this")                                        //
      ("tokens", po::value(&base.tokens)->default_value(base.tokens), "keys")      //
      ("queries", po::value(&base.queries), "queries (default: as many as keys)")  //
      ("heads", po::value(&base.heads)->default_value(base.heads), "query heads")  //
      ("kv-heads", po::value(&base.kv_heads), "key/value heads (default: heads)")  //
      ("dim", po::value(&dim), "head dimension")                                   //
      ("value-dim", po::value(&base.value_dim), "value dimension (default: dim)")  //
      ("dtype", po::value(&dtype), "f32, f16 or bf16")                             //
      ("mask", po::value(&mask), "full or causal")                                 //
      ("isa", po::value(&isa),
       "scalar, avx2, avx512, avx512_bf16, amx_bf16 or fastest (default: the vector paths)")     //
      ("threads", po::value(&base.threads)->default_value(base.threads), "threads of the fold")  //
      ("device", po::value(&device)->default_value("cpu"), "cpu, or cuda (with --serve)")        //
      ("serve", "answer cases, JSON objects on lines of stdin, with JSON lines")                 //
      ("repeat", po::value(&base.repeat)->default_value(base.repeat), "runs of each; medians count");
  po::variables_map values;
  po::store(po::parse_command_line(argc, argv, flags), values);
  po::notify(values);
  if (values.count("help") > 0) {
    std::cout << flags;
    return 0;
  }
  if (device != "cpu" && device != "cuda") throw po::error("--device: must be cpu or cuda");
  if (values.count("serve") > 0) {
    auto const served = device == "cuda" ? make_cuda_device() : make_cpu_device({.threads = base.threads});
    return plait::bench::serve(*served);
  }
  if (device == "cuda") throw po::error("--device cuda needs --serve");
  if (values.count("kv-heads") == 0) base.kv_heads = base.heads;
  if (values.count("queries") == 0) base.queries = base.tokens;
  bool const sane = base.tokens > 0 && base.queries > 0 && base.kv_heads > 0 && base.heads > 0 &&
                    base.heads % base.kv_heads == 0 && base.threads > 0 && base.repeat > 0 && dim >= 0;
  if (!sane) throw po::error("sizes must be positive, and --heads a multiple of --kv-heads");
  if (!mask.empty() && mask != "full" && mask != "causal") throw po::error("--mask: must be full or causal");
  bool const fastest = isa == "fastest";
  auto isas = fastest ? std::vector{supported_isas().back()} : chosen(isa, supported_isas(), "isa");
  if (isa.empty() && isas.size() > 1) std::erase(isas, CpuIsa::scalar);
  fmt::print("{:>11} {:>5} {:>4} {:>4} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}\n",
             "isa", "type", "D", "Dv", "queries", "keys", "mask", "ms min", "median", "max", "rate", "bound",
             "unit", "share", "#wrong");
  MemoryReader memory(base.threads);
  Index wrong = 0;
  for (Index const head_dim : dim > 0 ? std::vector<Index>{dim} : std::vector<Index>{128, 64}) {
    for (CpuIsa const path : isas) {
      for (DType const type : chosen(dtype, std::vector{DType::f32, DType::bf16, DType::f16}, "dtype")) {
        bool const narrow = path == CpuIsa::avx512_bf16 || path == CpuIsa::amx_bf16;
        if (isa.empty() && narrow && type != DType::bf16) continue;  // avx512 runs them
        for (bool const causal : {false, true}) {
          if (!mask.empty() && causal != (mask == "causal")) continue;
          Setting setting = base;
          setting.dim = head_dim;
          if (values.count("value-dim") == 0) setting.value_dim = head_dim;
          setting.dtype = type;
          setting.isa = path;
          setting.causal = causal;
          wrong += bench(setting, memory);
        }
      }
    }
  }
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (po::error const& error) {
    std::cerr << "fold_bench: " << error.what() << '\n';
    return 2;
  } catch (std::exception const& error) {
    std::cerr << "fold_bench: " << error.what() << '\n';
    return 1;
  }
}
