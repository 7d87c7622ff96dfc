// Before any data moves: do all ranks mean the same run?
#pragma once

#include "plait/attention.hpp"
#include "plait/plan.hpp"
#include "plait/world.hpp"

namespace plait {

/// Compares version, problem, mask, layouts, strategy, plan and kinds of device and transport of all ranks,
/// by hash where they are large. Collective. @throws Disagreement that shows what differs and on which ranks
void agree(World const& world, Plan const& plan, AttentionOptions const& options);

}  // namespace plait
