#include "local_tensors.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "random.hpp"
#include "size.hpp"

namespace plait {
namespace {

std::vector<NewTensor> output_tensors(Shape const& s) {
  return {{"out", file_dtype(s.dtype), {s.batch, s.q_tokens, s.q_heads, s.value_dim}},
          {"lse", FileDType::f32, {s.batch, s.q_heads, s.q_tokens}}};
}

TensorInfo const& attention_tensor(TensorReader const& input, std::string_view name) {
  TensorInfo const& tensor = input.tensor(name);
  if (tensor.shape.size() != 4 || !compute_dtype(tensor.dtype)) {
    throw InvalidProblem(fmt::format(
        "{}: tensor {} is {} with {} axes; expected F32, F16 or BF16 with 4 axes [batch, tokens, heads, dim]",
        input.path().string(), name, plait::name(tensor.dtype), tensor.shape.size()));
  }
  return tensor;
}

HostVector<std::byte> read_share(TensorReader const& input, std::string_view name,
                                 std::vector<Slice> const& slices) {
  TensorInfo const& tensor = input.tensor(name);
  HostVector<std::byte> share(rows_bytes(tensor, 1, slices, input.path().string()));
  input.read_rows(tensor, 1, slices, share);
  return share;
}

enum class Input : std::uint8_t { q, k, v };

HostVector<std::byte> random_share(Shape const& shape, Input which, Layout const& layout, int rank,
                                   int threads) {
  Index const heads = which == Input::q ? shape.q_heads : shape.kv_heads;
  Index const dim = which == Input::v ? shape.value_dim : shape.head_dim;
  Index const elements = shape.batch * layout.tokens(rank) * heads * dim;
  RandomTensor const random(static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(which));
  HostVector<std::byte> share(static_cast<std::size_t>(elements) * size_bytes(shape.dtype));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (Index i = 0; i < elements; ++i) {
    store(shape.dtype, share.data(), i, static_cast<float>(random.uniform(static_cast<std::uint64_t>(i))));
  }
  return share;
}

}  // namespace

Shape read_shape(TensorReader const& input) {
  TensorInfo const& q = attention_tensor(input, "q");
  TensorInfo const& k = attention_tensor(input, "k");
  TensorInfo const& v = attention_tensor(input, "v");
  auto const require = [&](bool holds, std::string_view what) {
    if (!holds) throw InvalidProblem(fmt::format("{}: {}", input.path().string(), what));
  };
  require(q.dtype == k.dtype && k.dtype == v.dtype, "q, k and v must have one element type");
  require(q.shape[0] == k.shape[0] && k.shape[0] == v.shape[0], "q, k and v must have one batch size");
  require(k.shape[1] == v.shape[1], "k and v must have as many tokens");
  require(k.shape[2] == v.shape[2], "k and v must have as many heads");
  require(q.shape[3] == k.shape[3], "heads of q and k must be equally wide");
  return {.batch = q.shape[0],
          .q_tokens = q.shape[1],
          .kv_tokens = k.shape[1],
          .q_heads = q.shape[2],
          .kv_heads = k.shape[2],
          .head_dim = q.shape[3],
          .value_dim = v.shape[3],
          .dtype = *compute_dtype(q.dtype)};
}

RankTensors::RankTensors(TensorReader const& input, Plan const& plan, int rank)
    : RankTensors(plan, rank, read_share(input, "q", plan.layouts.q.slices(rank)),
                  read_share(input, "k", plan.layouts.kv.slices(rank)),
                  read_share(input, "v", plan.layouts.kv.slices(rank))) {}

RankTensors::RankTensors(Plan const& plan, int rank, int threads)
    : RankTensors(plan, rank, random_share(plan.problem.shape, Input::q, plan.layouts.q, rank, threads),
                  random_share(plan.problem.shape, Input::k, plan.layouts.kv, rank, threads),
                  random_share(plan.problem.shape, Input::v, plan.layouts.kv, rank, threads)) {}

RankTensors::RankTensors(Plan const& plan, int rank, HostVector<std::byte> q, HostVector<std::byte> k,
                         HostVector<std::byte> v)
    : shape_(plan.problem.shape),
      q_slices_(plan.layouts.q.slices(rank)),
      q_rows_(plan.layouts.q.tokens(rank)),
      kv_rows_(plan.layouts.kv.tokens(rank)),
      q_(std::move(q)),
      k_(std::move(k)),
      v_(std::move(v)) {
  auto const lines = static_cast<std::size_t>(shape_.batch * shape_.q_heads * q_rows_);
  out_.resize(lines * static_cast<std::size_t>(shape_.value_dim) * size_bytes(shape_.dtype));
  lse_.resize(lines);
}

TensorView RankTensors::q() const {
  return dense(static_cast<void const*>(q_.data()), shape_.dtype, shape_.batch, q_rows_, shape_.q_heads,
               shape_.head_dim);
}
TensorView RankTensors::out() const {
  return dense(static_cast<void const*>(out_.data()), shape_.dtype, shape_.batch, q_rows_, shape_.q_heads,
               shape_.value_dim);
}

void RankTensors::place(Device& device) {
  if (device.stream() == nullptr) return;
  device_ = &device;
  auto const copy = [&](HostVector<std::byte> const& from) {
    auto memory = device.allocate(from.size());
    device.upload(from, memory->data());
    return memory;
  };
  placed_ = {.q = copy(q_),
             .k = copy(k_),
             .v = copy(v_),
             .out = device.allocate(out_.size()),
             .lse = device.allocate(lse_.size() * sizeof(float))};
}

void RankTensors::fetch() {
  if (device_ == nullptr) return;
  device_->download(placed_.out->data(), out_);
  device_->download(placed_.lse->data(), std::as_writable_bytes(std::span(lse_)));
}

LocalTensors RankTensors::views() {
  auto const data = [](std::unique_ptr<DeviceMemory> const& placed, auto& host) -> void* {
    return placed ? static_cast<void*>(placed->data()) : static_cast<void*>(host.data());
  };
  return {.q = dense<void const>(data(placed_.q, q_), shape_.dtype, shape_.batch, q_rows_, shape_.q_heads,
                                 shape_.head_dim),
          .k = dense<void const>(data(placed_.k, k_), shape_.dtype, shape_.batch, kv_rows_, shape_.kv_heads,
                                 shape_.head_dim),
          .v = dense<void const>(data(placed_.v, v_), shape_.dtype, shape_.batch, kv_rows_, shape_.kv_heads,
                                 shape_.value_dim),
          .out = dense<void>(data(placed_.out, out_), shape_.dtype, shape_.batch, q_rows_, shape_.q_heads,
                             shape_.value_dim),
          .lse = static_cast<float*>(data(placed_.lse, lse_))};
}

void RankTensors::write(Job const& job, std::string const& path) {
  bool const creates = job.world().rank() == 0;
  std::optional<TensorWriter> writer;
  job.together("creating the output", [&] {
    if (creates) writer.emplace(TensorWriter::create(path, output_tensors(shape_)));
  });
  job.together("opening the output", [&] {
    if (!creates) writer.emplace(TensorWriter::join(path));
  });
  job.together("writing the output", [&] {
    writer->write_rows(writer->tensor("out"), 1, q_slices_, out_);
    writer->write_rows(writer->tensor("lse"), 2, q_slices_, std::as_bytes(std::span(lse_)));
    writer->close();
  });
  job.together("renaming the output", [&] {
    if (creates) writer->commit();
  });
}

void require_writable(std::string const& path, Shape const& shape) {
  std::filesystem::path const target(path);
  std::filesystem::path const directory = target.has_parent_path() ? target.parent_path() : ".";
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    throw FileError(
        fmt::format("--output {}: can't write in {}: {}", path, directory.string(), std::strerror(errno)));
  }
  if (std::filesystem::exists(target) && !std::filesystem::is_regular_file(target)) {
    throw FileError(fmt::format("--output {}: exists and is no regular file", path));
  }
  auto const lines = static_cast<std::uint64_t>(shape.batch * shape.q_tokens * shape.q_heads);
  std::uint64_t const needed =
      lines * (static_cast<std::uint64_t>(shape.value_dim) * size_bytes(shape.dtype) + sizeof(float));
  std::uint64_t const room = std::filesystem::space(directory).available;
  if (room < needed) {
    throw FileError(fmt::format("--output {}: needs {}, the disk has room for {}", path, format_bytes(needed),
                                format_bytes(room)));
  }
}

}  // namespace plait
