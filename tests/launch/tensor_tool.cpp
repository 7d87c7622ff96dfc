// A program through which a script in another language meets the reader, the writer and the oracle.
//   tensor_tool list FILE              one line per tensor: name and first bytes in hex, dtype, shape
//   tensor_tool copy FROM TO RANKS     reads and writes every tensor as so many ranks would, row by row in
//   turn tensor_tool oracle FROM TO SCALE   q, k, v → out F64, lse F64, plain_out F32 under a causal mask
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "oracle.hpp"
#include "tensor_file.hpp"

namespace plait {
namespace {

std::string hex(std::span<std::byte const> bytes) {
  std::string text;
  for (std::byte const byte : bytes) {
    text += "0123456789abcdef"[std::to_integer<int>(byte >> 4)];
    text += "0123456789abcdef"[std::to_integer<int>(byte & std::byte{15})];
  }
  return text;
}

void list(char const* path) {
  TensorReader const reader(path);
  for (TensorInfo const& tensor : reader.tensors()) {
    std::cout << hex(std::as_bytes(std::span(tensor.name))) << '|' << name(tensor.dtype) << '|';
    for (Index const size : tensor.shape) std::cout << size << ',';
    std::cout << '|' << hex(reader.read(tensor)) << '\n';
  }
}

/// Rank r of `ranks` owns rows r, r + ranks, …
std::vector<Slice> rows_of(std::size_t rank, std::size_t ranks, Index rows) {
  std::vector<Slice> slices;
  for (Index row = static_cast<Index>(rank); row < rows; row += static_cast<Index>(ranks)) {
    slices.push_back({row, row + 1});
  }
  return slices;
}

/// The last axis whose rows are whole bytes; none for a scalar.
std::optional<std::size_t> axis_to_split(TensorInfo const& tensor) {
  std::uint64_t inner_bits = size_bits(tensor.dtype);
  for (std::size_t axis = tensor.shape.size(); axis-- > 0;) {
    if (inner_bits % 8 == 0) return axis;
    inner_bits *= static_cast<std::uint64_t>(tensor.shape[axis]);
  }
  return std::nullopt;
}

void copy(char const* from, char const* to, std::size_t ranks) {
  TensorReader const reader(from);
  std::vector<NewTensor> tensors;
  for (TensorInfo const& tensor : reader.tensors())
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape});
  std::vector<TensorWriter> writers;
  writers.push_back(TensorWriter::create(to, tensors, reader.metadata()));
  while (writers.size() < ranks) writers.push_back(TensorWriter::join(to));
  for (TensorInfo const& tensor : reader.tensors()) {
    auto const axis = axis_to_split(tensor);
    if (!axis) writers.front().write(writers.front().tensor(tensor.name), reader.read(tensor));
    for (std::size_t rank = 0; axis && rank < ranks; ++rank) {
      auto const rows = rows_of(rank, ranks, tensor.shape[*axis]);
      std::vector<std::byte> bytes(rows_bytes(tensor, *axis, rows, from));
      reader.read_rows(tensor, *axis, rows, bytes);
      writers[rank].write_rows(writers[rank].tensor(tensor.name), *axis, rows, bytes);
    }
  }
  for (TensorWriter& writer : writers) writer.close();
  writers.front().commit();
}

/// One of q, k, v, in memory.
struct Loaded {
  explicit Loaded(TensorReader const& reader, std::string_view which)
      : info(reader.tensor(which)), bytes(reader.read(info)) {}
  [[nodiscard]] TensorView view() const {
    return dense<void const>(bytes.data(), compute_dtype(info.dtype).value(), info.shape.at(0),
                             info.shape.at(1), info.shape.at(2), info.shape.at(3));
  }
  TensorInfo info;
  std::vector<std::byte> bytes;
};

void run_oracle(char const* from, char const* to, double scale) {
  TensorReader const reader(from);
  Loaded const q(reader, "q"), k(reader, "k"), v(reader, "v");
  std::vector<Index> positions(static_cast<std::size_t>(q.view().rows));
  std::iota(positions.begin(), positions.end(), Index{0});
  Index const aligned = k.view().rows - q.view().rows;
  OracleResult const result = compute_oracle({.q = q.view(),
                                              .q_positions = positions,
                                              .kv_tokens = k.view().rows,
                                              .kv_heads = k.view().heads,
                                              .value_dim = v.view().dim,
                                              .keys = [&](Slice rows) { return k.view().rows_of(rows); },
                                              .values = [&](Slice rows) { return v.view().rows_of(rows); },
                                              .keeps = [=](Index i, Index j) { return j - i <= aligned; },
                                              .scale = scale,
                                              .block_tokens = 100});
  std::vector<Index> const out_shape{result.batch, result.rows, result.q_heads, result.value_dim};
  std::vector<NewTensor> const tensors{{"out", FileDType::f64, out_shape},
                                       {"lse", FileDType::f64, {result.batch, result.q_heads, result.rows}},
                                       {"plain_out", FileDType::f32, out_shape}};
  auto writer = TensorWriter::create(to, tensors);
  writer.write(writer.tensor("out"), std::as_bytes(std::span(result.out)));
  writer.write(writer.tensor("lse"), std::as_bytes(std::span(result.lse)));
  writer.write(writer.tensor("plain_out"), std::as_bytes(std::span(result.plain_out)));
  writer.close();
  writer.commit();
}

int run(std::span<char*> arguments) {
  std::string const command = arguments.size() > 1 ? arguments[1] : "";
  if (command == "list" && arguments.size() == 3) {
    list(arguments[2]);
  } else if (command == "copy" && arguments.size() == 5) {
    copy(arguments[2], arguments[3], std::stoul(arguments[4]));
  } else if (command == "oracle" && arguments.size() == 5) {
    run_oracle(arguments[2], arguments[3], std::stod(arguments[4]));
  } else {
    std::cerr << "usage: tensor_tool list FILE | copy FROM TO RANKS | oracle FROM TO SCALE\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  try {
    return plait::run(std::span(argv, static_cast<std::size_t>(argc)));
  } catch (std::exception const& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
