// plait generate: random tensors q, k and v in a safetensors file, each rank its slices.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "log.hpp"
#include "plait/layout.hpp"
#include "problem_flags.hpp"
#include "random.hpp"
#include "size.hpp"
#include "subcommand.hpp"
#include "tensor_file.hpp"

namespace plait {
namespace {

/// Elements made and written at a time.
constexpr Index chunk_elements = Index{4} << 20;

enum class Distribution : std::uint8_t { normal, uniform };

struct GenerateOptions {
  std::string output;
  Shape shape;
  std::uint64_t seed = 0;
  Distribution distribution = Distribution::normal;
  double scale = 1.0;
};

po::options_description generate_flags() {
  po::options_description flags;
  po::options_description values("Values");
  values.add_options()("output", text("FILE"), "the safetensors file to write; required")(
      "seed", text("S"), "the same seed gives the same file, whatever the number of ranks (default 0)")(
      "distribution", text("NAME"), "normal or uniform in (-1, 1) (default normal)")(
      "spread", text("X"), "multiplies every value (default 1)")("help,h", "this text");
  flags.add(shape_flags()).add(values);
  return flags;
}

GenerateOptions parse_options(Words const& words) {
  constexpr std::array<std::string_view, 2> distributions = {"normal", "uniform"};
  CommandLine const line(words, generate_flags());
  return {.output = line.require("output"),
          .shape = parse_shape(line),
          .seed = static_cast<std::uint64_t>(parse_size("--seed", line.get("seed", "0"))),
          .distribution = line.choose("distribution", "normal", distributions) == "normal"
                              ? Distribution::normal
                              : Distribution::uniform,
          .scale = parse_real("--spread", line.get("spread", "1"))};
}

std::vector<NewTensor> new_tensors(Shape const& s) {
  FileDType const type = file_dtype(s.dtype);
  return {{"q", type, {s.batch, s.q_tokens, s.q_heads, s.head_dim}},
          {"k", type, {s.batch, s.kv_tokens, s.kv_heads, s.head_dim}},
          {"v", type, {s.batch, s.kv_tokens, s.kv_heads, s.value_dim}}};
}

void store(float value, DType type, std::byte* target) {
  if (type == DType::f32) {
    std::memcpy(target, &value, sizeof value);
    return;
  }
  std::uint16_t const bits = type == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
  std::memcpy(target, &bits, sizeof bits);
}

/// Rows [rows) of all batch entries of tensor number `number`, chunk by chunk.
void write_slice(TensorWriter& writer, GenerateOptions const& options, std::uint64_t number,
                 NewTensor const& tensor, Slice rows) {
  RandomTensor const random(options.seed, number);
  DType const type = options.shape.dtype;
  std::size_t const width = size_bytes(type);
  Index const batch = tensor.shape[0];
  Index const row_elements = tensor.shape[2] * tensor.shape[3];
  Index const step = std::max<Index>(1, chunk_elements / (batch * row_elements));
  std::vector<std::byte> chunk;
  for (Index begin = rows.begin; begin < rows.end; begin += step) {
    Slice const part{begin, std::min(rows.end, begin + step)};
    chunk.resize(static_cast<std::size_t>(batch * part.size() * row_elements) * width);
    std::byte* target = chunk.data();
    for (Index b = 0; b < batch; ++b) {
      Index const first = (b * tensor.shape[1] + part.begin) * row_elements;
      for (Index i = first; i < first + part.size() * row_elements; ++i, target += width) {
        auto const element = static_cast<std::uint64_t>(i);
        double const value =
            options.distribution == Distribution::normal ? random.normal(element) : random.uniform(element);
        store(static_cast<float>(options.scale * value), type, target);
      }
    }
    writer.write_rows(writer.tensor(tensor.name), 1, std::span(&part, 1), chunk);
  }
}

void write_share(TensorWriter& writer, GenerateOptions const& options, int rank, int ranks) {
  std::vector<NewTensor> const tensors = new_tensors(options.shape);
  for (std::size_t number = 0; number < tensors.size(); ++number) {
    Layout const layout = Layout::contiguous(tensors[number].shape[1], ranks);
    for (Slice const& rows : layout.slices(rank)) {
      write_slice(writer, options, number, tensors[number], rows);
    }
  }
  writer.close();
}

void write_alone(GenerateOptions const& options) {
  TensorWriter writer = TensorWriter::create(options.output, new_tensors(options.shape));
  write_share(writer, options, 0, 1);
  writer.commit();
}

void write_together(Job const& job, GenerateOptions const& options) {
  int const rank = job.world().rank();
  std::optional<TensorWriter> writer;
  job.together("creating the file", [&] {
    if (rank == 0) writer.emplace(TensorWriter::create(options.output, new_tensors(options.shape)));
  });
  job.together("opening the file", [&] {
    if (rank != 0) writer.emplace(TensorWriter::join(options.output));
  });
  job.together("writing the file", [&] { write_share(*writer, options, rank, job.world().size()); });
  job.together("renaming the file", [&] {
    if (rank == 0) writer->commit();
  });
}

}  // namespace

ExitCode generate(Words const& words, std::unique_ptr<Job>& job) {
  if (asks_for_help(words)) {
    print_help("plait generate --tokens N --output FILE [FLAGS]", generate_flags(),
               "  plait generate --tokens 4K --heads 8:2 --output input.safetensors\n"
               "  mpirun -np 4 plait generate --tokens 1M --dim 128 --dtype f16 --seed 7 --output "
               "big.safetensors\n");
    return ExitCode::done;
  }
  if (!launched_rank()) {
    write_alone(parse_options(words));
    return ExitCode::done;
  }
  job = std::make_unique<Job>(WorldOptions{});
  write_together(*job, job->together("the flags", [&] { return parse_options(words); }));
  return ExitCode::done;
}

}  // namespace plait
