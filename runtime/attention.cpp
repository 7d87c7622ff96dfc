#include "plait/attention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "agreement.hpp"
#include "executor.hpp"

namespace plait {
namespace {

constexpr int verified_ranks = 64;

bool wants_verification(AttentionOptions::Verification when, int ranks) {
  using Verification = AttentionOptions::Verification;
  return when == Verification::always || (when == Verification::up_to_64_ranks && ranks <= verified_ranks);
}

template <class Data>
void require_shape(std::string_view name, BasicTensorView<Data> const& view, DType dtype, Index batch,
                   Index rows, Index heads, Index dim) {
  bool const fits = view.dtype == dtype && view.batch == batch && view.rows == rows && view.heads == heads &&
                    view.dim == dim && (view.data != nullptr || rows == 0);
  if (fits) return;
  throw InvalidProblem(
      fmt::format("this rank's {} is {} [{}, {}, {}, {}]{}; the plan needs {} [{}, {}, {}, {}]", name,
                  plait::name(view.dtype), view.batch, view.rows, view.heads, view.dim,
                  view.data == nullptr ? " without data" : "", plait::name(dtype), batch, rows, heads, dim));
}

}  // namespace

struct Attention::Impl {
  Impl(World const& world_in, Plan plan_in, AttentionOptions options_in)
      : world(world_in), plan(std::move(plan_in)), options(std::move(options_in)) {
    validate(plan.problem);
    if (plan.ranks() != world.size()) {
      throw InvalidProblem(fmt::format("a plan for {} ranks in a world of {}", plan.ranks(), world.size()));
    }
    require_reducible();
    agree(world, plan, options);
    if (wants_verification(options.verification, plan.ranks())) require_verified(plan);
    bool const on_gpu = options.device == DeviceKind::cuda;
    device = on_gpu ? make_cuda_device(options.cuda) : make_cpu_device(options.cpu);
    std::string const gpu = on_gpu ? cuda_devices().at(static_cast<std::size_t>(options.cuda.index)).pci : "";
    TransportChoice choice =
        make_transport(world, options.transport, {.stream = device->stream(), .gpu = gpu});
    transport = std::move(choice.transport);
    transport_reason = std::move(choice.why);
    transport->name_blocks([this](std::uint64_t block) {
      bool const known = block < plan.blocks.size();
      return known ? describe(plan.block(static_cast<BlockId>(block)))
                   : fmt::format("unknown block {}", block);
    });
    executor = std::make_unique<Executor>(plan, world.rank(), *device, *transport, options);
  }

  /// MPI's reductions merge on the host.
  void require_reducible() const {
    bool const reduces = std::ranges::any_of(
        plan.programs, [](Program const& program) { return !program.reductions.empty(); });
    if (!reduces || options.device == DeviceKind::cpu) return;
    throw InvalidProblem(
        fmt::format("strategy '{}' reduces states in MPI, which works between CPU ranks; on GPUs tree:log "
                    "and tree:direct do",
                    plan.strategy));
  }

  void require_tensors(LocalTensors const& tensors) const {
    Shape const& shape = plan.problem.shape;
    Index const queries = plan.layouts.q.tokens(world.rank());
    Index const keys = plan.layouts.kv.tokens(world.rank());
    require_shape("q", tensors.q, shape.dtype, shape.batch, queries, shape.q_heads, shape.head_dim);
    require_shape("k", tensors.k, shape.dtype, shape.batch, keys, shape.kv_heads, shape.head_dim);
    require_shape("v", tensors.v, shape.dtype, shape.batch, keys, shape.kv_heads, shape.value_dim);
    require_shape("out", tensors.out, shape.dtype, shape.batch, queries, shape.q_heads, shape.value_dim);
  }

  /// The bytes moved since `before`, checked against the plan's.
  void count_traffic(Traffic const& before, RunReport& report) const {
    Traffic const now = transport->traffic();
    std::vector<std::uint64_t> const planned = sent_per_peer(plan, world.rank());
    for (std::size_t peer = 0; peer < planned.size(); ++peer) {
      bool const copied = static_cast<int>(peer) == world.rank();  // to itself: it went nowhere
      report.sent.push_back(copied ? 0 : now.sent[peer] - before.sent[peer]);
      report.received.push_back(copied ? 0 : now.received[peer] - before.received[peer]);
      if (report.sent[peer] != planned[peer]) {
        throw CommError(fmt::format("rank {} moved {} bytes to rank {}, its plan says {}", world.rank(),
                                    report.sent[peer], peer, planned[peer]));
      }
    }
  }

  World const& world;
  Plan plan;
  AttentionOptions options;
  std::unique_ptr<Device> device;
  std::unique_ptr<Transport> transport;
  std::string transport_reason;
  std::unique_ptr<Executor> executor;
};

Attention::Attention(World const& world, Plan plan, AttentionOptions options)
    : impl_(std::make_unique<Impl>(world, std::move(plan), std::move(options))) {}
Attention::~Attention() = default;
Attention::Attention(Attention&&) noexcept = default;

Plan const& Attention::plan() const {
  return impl_->plan;
}
Device& Attention::device() const {
  return *impl_->device;
}
std::string Attention::transport_reason() const {
  return impl_->transport_reason;
}
std::vector<std::string> Attention::kernels() const {
  return impl_->executor->kernels();
}
std::string Attention::transport() const {
  return impl_->transport->describe();
}
std::uint64_t Attention::slots_bytes() const {
  return impl_->executor->slots_bytes();
}
std::uint64_t Attention::scratch_bytes() const {
  return impl_->executor->fold_plan_bytes() + impl_->executor->reduction_bytes() +
         impl_->device->scratch_bytes();
}

RunReport Attention::run(LocalTensors const& tensors) {
  impl_->require_tensors(tensors);
  Traffic const before = impl_->transport->traffic();
  impl_->transport->barrier("the start of the run");
  RunReport report = impl_->executor->run(tensors, std::chrono::steady_clock::now());
  impl_->count_traffic(before, report);
  return report;
}

}  // namespace plait
