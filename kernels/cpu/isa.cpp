// Which path folds: the processor's fastest, or the one that was asked for.
#include <fmt/format.h>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>

#include "device.hpp"
#include "plait/cpu_device.hpp"

namespace plait {
namespace {

constexpr std::array isas{CpuIsa::scalar, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16,
                          CpuIsa::amx_bf16};

#ifdef __x86_64__
/// Linux gives a process its tile registers when it asks for them.
bool tiles_allowed() {
#if defined __linux__ && defined SYS_arch_prctl
  constexpr int request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int tile_data = 18;
  static bool const allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return allowed;
#else
  return false;
#endif
}

cpu::FoldPath path_of(CpuIsa isa, DType dtype) {
  bool const bf16 = dtype == DType::bf16;
  switch (isa) {
    case CpuIsa::amx_bf16:
      return bf16 ? cpu::amx_bf16_path() : cpu::avx512_path();
    case CpuIsa::avx512_bf16:
      return bf16 ? cpu::avx512_bf16_path() : cpu::avx512_path();
    case CpuIsa::avx512:
      return cpu::avx512_path();
    case CpuIsa::avx2:
      return cpu::avx2_path();
    case CpuIsa::scalar:
      return cpu::scalar_path();
  }
  __builtin_unreachable();
}
#else
cpu::FoldPath path_of(CpuIsa, DType) {
  return cpu::scalar_path();
}
#endif

template <class Isas>
std::string list(Isas const& several, std::string_view last_separator) {
  std::string names;
  for (std::size_t i = 0; i < several.size(); ++i) {
    names += fmt::format("{}{}",
                         i == 0                   ? ""
                         : i + 1 < several.size() ? ", "
                                                  : last_separator,
                         name(several[i]));
  }
  return names;
}

/// The path that the options or the environment ask for, else the fastest.
CpuIsa choose_isa(std::optional<CpuIsa> asked) {
  std::vector<CpuIsa> const supported = supported_isas();
  char const* const variable = std::getenv("PLAIT_CPU_ISA");
  if (!asked && variable != nullptr) {
    auto const* const found =
        std::ranges::find(isas, std::string_view(variable), [](CpuIsa isa) { return name(isa); });
    if (found == isas.end()) {
      throw Unsupported(fmt::format("PLAIT_CPU_ISA={}: must be {}; this processor has {}", variable,
                                    list(isas, " or "), list(supported, ", ")));
    }
    asked = *found;
  }
  if (!asked) return supported.back();
  if (std::ranges::find(supported, *asked) == supported.end()) {
    throw Unsupported(fmt::format("the {} path: this processor has {}", name(*asked), list(supported, ", ")));
  }
  return *asked;
}

}  // namespace

std::string_view name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::scalar:
      return "scalar";
    case CpuIsa::avx2:
      return "avx2";
    case CpuIsa::avx512:
      return "avx512";
    case CpuIsa::avx512_bf16:
      return "avx512_bf16";
    case CpuIsa::amx_bf16:
      return "amx_bf16";
  }
  __builtin_unreachable();
}

std::vector<CpuIsa> supported_isas() {
  std::vector<CpuIsa> found{CpuIsa::scalar};
#ifdef __x86_64__
  bool const avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2) found.push_back(CpuIsa::avx2);
  bool const avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) found.push_back(CpuIsa::avx512);
  bool const bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (bf16) found.push_back(CpuIsa::avx512_bf16);
  bool const amx = bf16 && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16");
  if (amx && tiles_allowed()) found.push_back(CpuIsa::amx_bf16);
#endif
  return found;
}

std::unique_ptr<Device> make_cpu_device(CpuOptions options) {
  CpuIsa const isa = choose_isa(options.isa);
  return cpu::make_device(
      std::string(name(isa)), [isa](DType dtype) { return path_of(isa, dtype); }, options.threads);
}

}  // namespace plait
