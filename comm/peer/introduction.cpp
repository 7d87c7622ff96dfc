#include "introduction.hpp"

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <span>
#include <string_view>

#include "../cuda/scratch.hpp"
#include "plait/comm_error.hpp"
#include "shared_memory.hpp"

namespace plait {
namespace {

/// One rank's part of the introduction, as it is sent; `sent` of all ranks follow it.
struct Card {
  cudaIpcEventHandle_t ready;
  SharedRun memory;  ///< a word for each rank
};

template <class Value>
void append(std::span<Value const> values, std::vector<std::byte>& bytes) {
  std::size_t const before = bytes.size();
  bytes.resize(before + values.size_bytes());
  std::memcpy(bytes.data() + before, values.data(), values.size_bytes());
}

/// Steps that all ranks take together, until one of them fails on some rank.
class Steps {
 public:
  explicit Steps(World const& world) : world_(world) {}

  /// Every rank's bytes after this one's `step`, which may fail: all learn of that, and take no further step.
  std::vector<std::vector<std::byte>> take(std::function<std::vector<std::byte>()> const& step) {
    if (!refusal_.empty()) return {};
    std::vector<std::byte> mine;
    try {
      mine.push_back(std::byte{1});
      append(std::span<std::byte const>(step()), mine);
    } catch (CommError const& error) {
      (void)cudaGetLastError();  // it is dealt with
      mine.assign(1, std::byte{0});
      append(std::span(std::string_view(error.what())), mine);
    }
    auto all = world_.all_gather(mine, "finding out whether GPUs reach each other's memory");
    for (std::size_t rank = 0; rank < all.size() && refusal_.empty(); ++rank) {
      if (all[rank].front() == std::byte{1}) continue;
      refusal_ = fmt::format(
          "rank {}: {}", rank,
          std::string_view(reinterpret_cast<char const*>(all[rank].data()) + 1, all[rank].size() - 1));
    }
    for (auto& bytes : all) bytes.erase(bytes.begin());
    return all;
  }
  [[nodiscard]] std::string const& refusal() const { return refusal_; }

 private:
  World const& world_;
  std::string refusal_;
};

/// What rank `from` writes for rank `to`.
std::uint64_t word(int from, int to) {
  return 0x706c616974000000 + static_cast<std::uint64_t>(from) * 4096 + static_cast<std::uint64_t>(to);
}

template <class Value>
Value read(std::vector<std::byte> const& bytes, std::size_t at) {
  Value value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

std::string introduce(World const& world, PeerEvents& events) {
  auto const ranks = static_cast<std::size_t>(world.size());
  Scratch words;
  OpenedMemory opened;
  Steps steps(world);
  auto const cards = steps.take([&] {
    events.ready.emplace(CudaEvent::of_processes());
    std::vector<cudaIpcEventHandle_t> sent;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      sent.push_back(events.sent.emplace_back(CudaEvent::of_processes()).handle());
    }
    std::size_t const bytes = ranks * sizeof(std::uint64_t);
    std::byte* const memory = words.at_least(bytes);
    auto const shared = share({.data = memory, .width = bytes, .pitch = bytes, .rows = 1});
    if (!shared) throw CommError("its device memory cannot be shared with other processes");
    Card const card{.ready = events.ready->handle(), .memory = *shared};
    std::vector<std::byte> mine;
    append(std::span(&card, 1), mine);
    append(std::span<cudaIpcEventHandle_t const>(sent), mine);
    return mine;
  });
  (void)steps.take([&] {
    auto const self = static_cast<std::size_t>(world.rank());
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      auto const card = read<Card>(cards[rank], 0);
      bool const own = rank == self;
      events.peer_ready.push_back(own ? CudaEvent() : CudaEvent::opened(card.ready));
      auto const sent = read<cudaIpcEventHandle_t>(cards[rank], sizeof card + self * sizeof card.ready);
      events.peer_sent.push_back(own ? CudaEvent() : CudaEvent::opened(sent));
      RowRun const memory = opened.open(card.memory);
      std::uint64_t const mine = word(world.rank(), static_cast<int>(rank));
      PLAIT_CHECK_CUDA(
          cudaMemcpy(memory.data + self * sizeof mine, &mine, sizeof mine, cudaMemcpyHostToDevice));
    }
    // A copy from memory that is not pinned may return before it has arrived.
    PLAIT_CHECK_CUDA(cudaDeviceSynchronize());
    return std::vector<std::byte>();
  });
  (void)steps.take([&] {
    std::vector<std::uint64_t> found(ranks);
    PLAIT_CHECK_CUDA(
        cudaMemcpy(found.data(), words.at_least(0), ranks * sizeof(std::uint64_t), cudaMemcpyDeviceToHost));
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      if (found[rank] == word(static_cast<int>(rank), world.rank())) continue;
      throw CommError(fmt::format("what rank {} wrote into its memory did not arrive", rank));
    }
    opened.close();
    return std::vector<std::byte>();
  });
  return steps.refusal();
}

}  // namespace plait
