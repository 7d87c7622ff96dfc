// The AMX fold on tile registers in software: its loops and layouts, tested on processors without tiles.
#pragma once

#include "cpu/fold_path.hpp"

namespace plait::test {

/// As cpu::amx_bf16_path(). Needs AVX-512 with BF16.
[[nodiscard]] cpu::FoldPath emulated_amx_path();

}  // namespace plait::test
