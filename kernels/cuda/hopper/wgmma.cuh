// wgmma of one warpgroup: 64×N fp32 accumulators in registers, 16 deep, as inline PTX.
//
// Accumulator element (row, column) of thread t, warp w = t / 32, quad row g = t % 32 / 4, q = t % 4:
//   d[4·j + 2·i + c] is row 16·w + g + 8·i, column 8·j + 2·q + c.
// The A operand in registers, for 16 columns of it starting at column 16·k, has the layout of the
// accumulators 8·k … 8·k + 7 rounded in pairs: a probability tile goes from the one product to the next
// without a shuffle.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace plait::cuda::hopper {

/// Orders this warpgroup's accesses to registers and shared memory before the wgmma that follow.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most `Pending` committed groups are unfinished.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
/// Keeps the compiler from moving accesses of operands in registers across this point.
template <int Count>
__device__ __forceinline__ void pin(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int Count>
__device__ __forceinline__ void pin(std::uint32_t (&a)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+r"(a[i])::"memory");
}
/// Zeroes words [Begin, End) of an operand here: ptxas carries a constant on to the next wgmma, and then
/// serializes all of them.
template <int Begin, int End, int Count>
__device__ __forceinline__ void clear(std::uint32_t (&a)[Count]) {
#pragma unroll
  for (int i = Begin; i < End; ++i) asm volatile("mov.u32 %0, 0;" : "=r"(a[i])::"memory");
}

#define PLAIT_D8(i)                                                                           \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define PLAIT_D32 PLAIT_D8(0), PLAIT_D8(8), PLAIT_D8(16), PLAIT_D8(24)
#define PLAIT_R32                                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PLAIT_D40 PLAIT_D32, PLAIT_D8(32)
#define PLAIT_R40 \
  PLAIT_R32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39"
#define PLAIT_D48 PLAIT_D40, PLAIT_D8(40)
#define PLAIT_R48 \
  PLAIT_R40       \
  ", %40, %41, %42, %43, %44, %45, %46, %47"
#define PLAIT_D56 PLAIT_D48, PLAIT_D8(48)
#define PLAIT_R56 \
  PLAIT_R48       \
  ", %48, %49, %50, %51, %52, %53, %54, %55"
#define PLAIT_D64 PLAIT_D56, PLAIT_D8(56)
#define PLAIT_R64 \
  PLAIT_R56       \
  ", %56, %57, %58, %59, %60, %61, %62, %63"
#define PLAIT_D80 PLAIT_D64, PLAIT_D8(64), PLAIT_D8(72)
#define PLAIT_R80 \
  PLAIT_R64       \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PLAIT_D88 PLAIT_D80, PLAIT_D8(80)
#define PLAIT_R88 \
  PLAIT_R80       \
  ", %80, %81, %82, %83, %84, %85, %86, %87"
#define PLAIT_D96 PLAIT_D88, PLAIT_D8(88)
#define PLAIT_R96 \
  PLAIT_R88       \
  ", %88, %89, %90, %91, %92, %93, %94, %95"
#define PLAIT_D128 PLAIT_D96, PLAIT_D8(96), PLAIT_D8(104), PLAIT_D8(112), PLAIT_D8(120)
#define PLAIT_R128                                                                                 \
  PLAIT_R96                                                                                        \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/// d (64×N) = a·b or, with `accumulate`, d += a·b. a: 64×16, b: N×16, both K-major in shared memory, by
/// descriptor.
template <class Element, int N>
__device__ __forceinline__ void wgmma_ss(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate);

/// d (64×N) += a·b. a: 64×16 in registers; b: 16×N, N-major in shared memory, by descriptor.
template <class Element, int N>
__device__ __forceinline__ void wgmma_rs(float (&d)[N / 2], std::uint32_t const (&a)[4], std::uint64_t b);

#define PLAIT_WGMMA_SS(ELEMENT, TYPE, N, COUNT, A, B, P)                                                   \
  template <>                                                                                              \
  __device__ __forceinline__ void wgmma_ss<ELEMENT, N>(float(&d)[COUNT], std::uint64_t a, std::uint64_t b, \
                                                       int accumulate) {                                   \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #P ", 0; wgmma.mma_async.sync.aligned.m64n" #N         \
                 "k16.f32." TYPE "." TYPE " {" PLAIT_R##COUNT "}, %" #A ", %" #B ", p, 1, 1, 0, 0; }"      \
                 : PLAIT_D##COUNT                                                                          \
                 : "l"(a), "l"(b), "r"(accumulate));                                                       \
  }
#define PLAIT_WGMMA_RS(ELEMENT, TYPE, N, COUNT, A0, A1, A2, A3, B)                                   \
  template <>                                                                                        \
  __device__ __forceinline__ void wgmma_rs<ELEMENT, N>(float(&d)[COUNT], std::uint32_t const(&a)[4], \
                                                       std::uint64_t b) {                            \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" PLAIT_R##COUNT \
                 "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 1;"                 \
                 : PLAIT_D##COUNT                                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
  }
#define PLAIT_WGMMA_SS_BOTH(N, COUNT, A, B, P)             \
  PLAIT_WGMMA_SS(__nv_bfloat16, "bf16", N, COUNT, A, B, P) \
  PLAIT_WGMMA_SS(__half, "f16", N, COUNT, A, B, P)
#define PLAIT_WGMMA_RS_BOTH(N, COUNT, A0, A1, A2, A3, B)             \
  PLAIT_WGMMA_RS(__nv_bfloat16, "bf16", N, COUNT, A0, A1, A2, A3, B) \
  PLAIT_WGMMA_RS(__half, "f16", N, COUNT, A0, A1, A2, A3, B)

PLAIT_WGMMA_SS_BOTH(64, 32, 32, 33, 34)
PLAIT_WGMMA_SS_BOTH(80, 40, 40, 41, 42)
PLAIT_WGMMA_SS_BOTH(96, 48, 48, 49, 50)
PLAIT_WGMMA_SS_BOTH(112, 56, 56, 57, 58)
PLAIT_WGMMA_SS_BOTH(128, 64, 64, 65, 66)
PLAIT_WGMMA_SS_BOTH(160, 80, 80, 81, 82)
PLAIT_WGMMA_SS_BOTH(176, 88, 88, 89, 90)
PLAIT_WGMMA_SS_BOTH(192, 96, 96, 97, 98)
PLAIT_WGMMA_SS_BOTH(256, 128, 128, 129, 130)

PLAIT_WGMMA_RS_BOTH(64, 32, 32, 33, 34, 35, 36)
PLAIT_WGMMA_RS_BOTH(128, 64, 64, 65, 66, 67, 68)
PLAIT_WGMMA_RS_BOTH(192, 96, 96, 97, 98, 99, 100)
PLAIT_WGMMA_RS_BOTH(256, 128, 128, 129, 130, 131, 132)

#undef PLAIT_D8
#undef PLAIT_D32
#undef PLAIT_D40
#undef PLAIT_D48
#undef PLAIT_D56
#undef PLAIT_D64
#undef PLAIT_D80
#undef PLAIT_D88
#undef PLAIT_D96
#undef PLAIT_D128
#undef PLAIT_R32
#undef PLAIT_R40
#undef PLAIT_R48
#undef PLAIT_R56
#undef PLAIT_R64
#undef PLAIT_R80
#undef PLAIT_R88
#undef PLAIT_R96
#undef PLAIT_R128
#undef PLAIT_WGMMA_SS
#undef PLAIT_WGMMA_RS
#undef PLAIT_WGMMA_SS_BOTH
#undef PLAIT_WGMMA_RS_BOTH

}  // namespace plait::cuda::hopper
