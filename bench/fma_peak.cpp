#include "fma_peak.hpp"

#include <chrono>

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int chains = 16;  // independent, so that latency is hidden; they fit AVX2's registers

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
#pragma GCC unroll 16
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

[[gnu::target("avx2,fma")]] float avx2_batch(long rounds, float factor) {
  return chain_batch<8>(rounds, factor);
}
[[gnu::target("avx512f,fma,prefer-vector-width=512")]] float avx512_batch(long rounds, float factor) {
  return chain_batch<16>(rounds, factor);
}

}  // namespace

double fma_flops_per_second(CpuIsa isa, double seconds) {
  auto* const batch = isa == CpuIsa::avx512 ? avx512_batch : isa == CpuIsa::avx2 ? avx2_batch : scalar_batch;
  double const lanes = isa == CpuIsa::avx512 ? 16 : isa == CpuIsa::avx2 ? 8 : 1;
  constexpr long rounds = 100000;
  float volatile keep = 0.0f;  // so that the work is not optimised away
  long batches = 0;
  auto const start = Clock::now();
  double elapsed = 0.0;
  while (elapsed < seconds) {
    keep = keep + batch(rounds, 0.999f);
    ++batches;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return 2.0 * chains * lanes * static_cast<double>(rounds) * static_cast<double>(batches) / elapsed;
}

}  // namespace plait
