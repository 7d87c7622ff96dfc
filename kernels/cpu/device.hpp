// A CPU device with any choice of paths: what make_cpu_device makes, and tests of paths that this processor
// lacks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "fold_path.hpp"

namespace plait::cpu {

/// The path that folds a type.
using PathOf = std::function<FoldPath(DType)>;

/// @param name     of the instruction set, for people
/// @param threads  0: OpenMP's default
[[nodiscard]] std::unique_ptr<Device> make_device(std::string name, PathOf path_of, int threads);

}  // namespace plait::cpu
