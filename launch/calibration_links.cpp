#include "calibration_links.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "exit_code.hpp"

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Topology topology(std::span<Place const> places) {
  auto const count = [&](int node) {
    return static_cast<int>(std::ranges::count(places, node, &Place::node));
  };
  Topology const found{.hosts = 1 + std::ranges::max(places, {}, &Place::node).node,
                       .ranks_per_host = count(0)};
  for (Place const& place : places) {
    if (count(place.node) != found.ranks_per_host) {
      throw UsageError(
          fmt::format("{} ranks on {}, {} on {}: a machine has as many on every host; start the job so",
                      found.ranks_per_host, places.front().host, count(place.node), place.host));
    }
    if (place.node != place.rank / found.ranks_per_host) {
      throw UsageError(fmt::format(
          "rank {} is on {}: a machine's consecutive ranks share a host; start the job so (mpirun --map-by "
          "slot, srun --distribution=block)",
          place.rank, place.host));
    }
  }
  return found;
}

KernelName kernel_name() {
  KernelName name{};
  std::ifstream("/proc/sys/kernel/random/boot_id").get(name.data(), name.size());
  return name;
}

bool same_kernel(std::span<KernelName const> names) {
  return names.front() != KernelName{} &&
         std::ranges::all_of(names, [&](KernelName const& name) { return name == names.front(); });
}

Peers within_host(Topology const& topology, int rank, int k) {
  int const size = topology.ranks_per_host;
  int const local = rank % size;
  int const first = rank - local;
  return {.to = first + (local + k) % size, .from = first + (local - k + size) % size};
}

Peers between_hosts(Topology const& topology, int rank, int k, Senders senders) {
  int const ranks = topology.hosts * topology.ranks_per_host;
  if (senders == Senders::one_per_host && rank % topology.ranks_per_host != 0) return {};
  int const shift = k * topology.ranks_per_host;
  return {.to = (rank + shift) % ranks, .from = (rank - shift + ranks) % ranks};
}

Peers one_way(int rank, int to) {
  if (rank == 0) return {.to = to, .from = -1};
  return {.to = -1, .from = rank == to ? 0 : -1};
}

ExchangeBench::ExchangeBench(Device& device, Transport& transport, Peers const& peers, int messages,
                             std::size_t bytes)
    : device_(device), transport_(transport), peers_(peers), messages_(messages), bytes_(bytes) {
  if (!takes_part()) return;
  std::vector<std::byte> const numbers(
      2 * std::max<std::size_t>(1, bytes * static_cast<std::size_t>(messages)), std::byte{0x3c});
  memory_ = device.allocate(numbers.size());
  device.upload(numbers, memory_->data());
}

Exchange ExchangeBench::exchange() const {
  Exchange exchange;
  std::byte* const into = memory_->data() + memory_->bytes() / 2;
  for (int i = 0; i < messages_; ++i) {
    std::size_t const at = bytes_ * static_cast<std::size_t>(i);
    auto const block = static_cast<std::uint64_t>(i);
    if (peers_.to >= 0) {
      exchange.sends.push_back(
          {.peer = peers_.to, .block = block, .pieces = {{memory_->data() + at, bytes_}}});
    }
    if (peers_.from >= 0) {
      exchange.receives.push_back({.peer = peers_.from, .block = block, .pieces = {{into + at, bytes_}}});
    }
  }
  return exchange;
}

template <class Work>
double ExchangeBench::timed(Work&& work) {
  auto const start = Clock::now();
  work();
  transport_.complete("an exchange that is timed");
  device_.synchronize();
  double const seconds = since(start);
  (void)transport_.take_flights();
  return seconds;
}

double ExchangeBench::operator()(int times) {
  if (!takes_part()) return 0.0;
  return timed([&] {
    for (int i = 0; i < times; ++i) {
      transport_.start(exchange(), memory_);
      transport_.finish();
    }
  });
}

double ExchangeBench::with_late_receiver(double late_seconds) {
  if (!takes_part()) return 0.0;
  return timed([&] {
    if (peers_.to < 0) std::this_thread::sleep_for(std::chrono::duration<double>(late_seconds));
    transport_.start(exchange(), memory_);
    transport_.finish();
  });
}

double ExchangeBench::while_folding(FoldBench& fold, int times) {
  return timed([&] {
    for (int i = 0; i < times; ++i) {
      transport_.start(exchange(), memory_);
      fold.fold();
      transport_.finish();
    }
  });
}

}  // namespace plait
