#include "peak.hpp"

#include "cpu/amx_tiles.hpp"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <chrono>

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int chains =
    12;  // independent, so that latency is hidden; with two factors they fit AVX2's registers

template <int lanes>
using Vector __attribute__((vector_size(lanes * sizeof(float)))) = float;

/// A batch of multiply-adds; returns something that depends on all of them.
template <int lanes>
[[gnu::always_inline]] inline float chain_batch(long rounds, float factor) {
  Vector<lanes> sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = Vector<lanes>{} + static_cast<float>(i);
  Vector<lanes> const a = Vector<lanes>{} + factor;
  Vector<lanes> const b = Vector<lanes>{} + 0.5f;
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = sums[i] * a + b;
  }
  float total = 0.0f;
  for (auto const& sum : sums) {
    for (int lane = 0; lane < lanes; ++lane) total += sum[lane];
  }
  return total;
}

float scalar_batch(long rounds, float factor) {
  float sums[chains] = {};
  for (long round = 0; round < rounds; ++round) {
    for (float& sum : sums) {
      sum = sum * factor + 0.5f;
      asm volatile("" : "+x"(sum));  // one at a time: this is the scalar rate
    }
  }
  float total = 0.0f;
  for (float const sum : sums) total += sum;
  return total;
}

#ifdef __x86_64__
[[gnu::target("avx2,fma")]] float avx2_batch(long rounds, float factor) {
  return chain_batch<8>(rounds, factor);
}
[[gnu::target("avx512f,fma,prefer-vector-width=512")]] float avx512_batch(long rounds, float factor) {
  return chain_batch<16>(rounds, factor);
}
[[gnu::target("avx512f,avx512bf16,prefer-vector-width=512")]] float dot_batch(long rounds, float factor) {
  __m512 sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  auto const a = reinterpret_cast<__m512bh>(_mm512_set1_ps(factor));
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, a);
  }
  float total = 0.0f;
  for (auto const& sum : sums) total += sum[0] + sum[15];
  return total;
}
/// Four sums, as a fold has them: each round is `chains` products.
float tile_batch(long rounds, float) {
  using cpu::AmxTiles;
  AmxTiles::configure();  // all zeros, which take as long
  for (long round = 0; round < rounds; ++round) {
    for (int i = 0; i < chains; i += 4) {
      AmxTiles::multiply_add<0, 4, 6>();
      AmxTiles::multiply_add<1, 4, 7>();
      AmxTiles::multiply_add<2, 5, 6>();
      AmxTiles::multiply_add<3, 5, 7>();
    }
  }
  AmxTiles::release();
  return 0.0f;
}
#endif

/// One way to multiply: a batch of `rounds` rounds, and the FLOPs of each of its chains per round.
struct Multiplier {
  float (*batch)(long rounds, float factor);
  double flops;
};
Multiplier multiplier(CpuIsa isa, [[maybe_unused]] DType dtype) {
  switch (isa) {
#ifdef __x86_64__
    case CpuIsa::amx_bf16:
      if (dtype == DType::bf16) return {tile_batch, 2.0 * 16 * 16 * 32};
      [[fallthrough]];
    case CpuIsa::avx512_bf16:
      if (dtype == DType::bf16) return {dot_batch, 64};
      [[fallthrough]];
    case CpuIsa::avx512:
      return {avx512_batch, 32};
    case CpuIsa::avx2:
      return {avx2_batch, 16};
#else
    case CpuIsa::amx_bf16:
    case CpuIsa::avx512_bf16:
    case CpuIsa::avx512:
    case CpuIsa::avx2:
#endif
    case CpuIsa::scalar:
      break;
  }
  return {scalar_batch, 2};
}

/// The exclusive or of `count` words, a multiple of 32.
std::uint64_t read_words(std::uint64_t const* words, std::size_t count) {
  std::uint64_t sums[32] = {};
  for (std::size_t i = 0; i < count; i += 32) {
    for (std::size_t j = 0; j < 32; ++j) sums[j] ^= words[i + j];
  }
  std::uint64_t total = 0;
  for (std::uint64_t const sum : sums) total ^= sum;
  return total;
}

}  // namespace

double multiply_flops_per_second(CpuIsa isa, DType dtype, double seconds) {
  Multiplier const use = multiplier(isa, dtype);
  constexpr long rounds = 100000;
  float volatile keep = 0.0f;  // so that the work is not optimised away
  long batches = 0;
  auto const start = Clock::now();
  double elapsed = 0.0;
  while (elapsed < seconds) {
    keep = keep + use.batch(rounds, 0.999f);
    ++batches;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return use.flops * chains * static_cast<double>(rounds) * static_cast<double>(batches) / elapsed;
}

MemoryReader::MemoryReader(int threads) : threads_(threads), memory_(std::size_t{1} << 25, 1) {}

double MemoryReader::bytes_per_second() {
  std::size_t const part = memory_.size() / static_cast<std::size_t>(threads_) / 32 * 32;
  std::uint64_t total = 0;
  auto const start = Clock::now();
#pragma omp parallel for num_threads(threads_) reduction(^ : total) schedule(static, 1)
  for (int thread = 0; thread < threads_; ++thread) {
    total ^= read_words(memory_.data() + part * static_cast<std::size_t>(thread), part);
  }
  double const elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  kept_ = total;
  return static_cast<double>(part * sizeof memory_[0]) * threads_ / elapsed;
}

}  // namespace plait
