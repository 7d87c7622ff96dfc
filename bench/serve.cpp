#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "device_case.hpp"

namespace plait::bench {
namespace {

using Json = nlohmann::json;

DType parse_dtype(std::string const& word) {
  for (DType const type : {DType::f32, DType::f16, DType::bf16}) {
    if (name(type) == word) return type;
  }
  throw std::invalid_argument("dtype " + word + ": must be f32, f16 or bf16");
}

DeviceCase parse_case(Json const& json) {
  DeviceCase given;
  given.op = json.value("op", given.op);
  given.mask = json.value("mask", given.mask);
  given.dtype = parse_dtype(json.value("dtype", "bf16"));
  given.batch = json.value("batch", given.batch);
  given.tokens = json.value("tokens", given.tokens);
  given.heads = json.value("heads", given.heads);
  given.kv_heads = json.value("kv_heads", given.heads);
  given.dim = json.value("dim", given.dim);
  given.value_dim = json.value("value_dim", given.dim);
  given.hops = json.value("hops", given.hops);
  given.strategy = json.value("strategy", given.strategy);
  given.layout = json.value("layout", given.layout);
  given.ranks = json.value("ranks", given.ranks);
  given.beside_transfers = json.value("beside_transfers", given.beside_transfers);
  given.repeat = json.value("repeat", given.repeat);
  given.checked_rows = json.value("checked_rows", given.checked_rows);
  return given;
}

Json answer(CaseResult const& result) {
  std::vector<double> sorted = result.seconds;
  std::ranges::sort(sorted);
  double const median = sorted[sorted.size() / 2];
  return {{"kernel", result.kernel},
          {"seconds", result.seconds},
          {"median_ms", median * 1e3},
          {"min_ms", sorted.front() * 1e3},
          {"flops", result.flops},
          {"tflops", result.flops / median * 1e-12},
          {"bytes", result.bytes},
          {"gbytes_per_second", result.bytes / median * 1e-9},
          {"extra_bytes", result.extra_bytes},
          {"checked_rows", result.checked_rows},
          {"wrong_rows", result.wrong_rows}};
}

}  // namespace

int serve(Device& device) {
  int failed = 0;
  for (std::string line; std::getline(std::cin, line);) {
    Json reply;
    try {
      CaseResult const result = run_case(device, parse_case(Json::parse(line)));
      if (result.wrong_rows > 0) failed = 1;
      reply = answer(result);
    } catch (std::exception const& error) {
      reply = {{"error", error.what()}};
      failed = 1;
    }
    std::cout << reply.dump() << std::endl;  // flushed: the reader waits for the line
  }
  return failed;
}

}  // namespace plait::bench
