#include "introduction.hpp"

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <span>
#include <string_view>

#include "../cuda/stream.hpp"
#include "plait/comm_error.hpp"
#include "stream_flags.hpp"

namespace plait {
namespace {

template <class Value>
void append(std::span<Value const> values, std::vector<std::byte>& bytes) {
  std::size_t const before = bytes.size();
  bytes.resize(before + values.size_bytes());
  std::memcpy(bytes.data() + before, values.data(), values.size_bytes());
}

std::string_view text(std::span<std::byte const> bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
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
      mine = step();
      mine.insert(mine.begin(), std::byte{1});
    } catch (CommError const& error) {
      (void)cudaGetLastError();  // it is dealt with
      mine.assign(1, std::byte{0});
      append(std::span(std::string_view(error.what())), mine);
    }
    auto all = world_.all_gather(mine, "finding out whether GPUs reach each other's memory");
    for (std::size_t rank = 0; rank < all.size() && refusal_.empty(); ++rank) {
      if (all[rank].front() == std::byte{1}) continue;
      refusal_ = fmt::format("rank {}: {}", rank, text(std::span(all[rank]).subspan(1)));
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

}  // namespace

PeerLinks::PeerLinks(World const& world) : mail(world.size(), world.rank()), world_(world) {
  PLAIT_CHECK_CUDA(cudaMemset(own_flags_.at_least(flag_bytes()), 0, flag_bytes()));
  PLAIT_CHECK_CUDA(cudaDeviceSynchronize());
}

std::size_t PeerLinks::flag_bytes() const {
  return 2 * sizeof(std::uint64_t) * static_cast<std::size_t>(world_.size());
}

void PeerLinks::let_go() const {
  constexpr int past_all_numbers = 0x7f;  // in each byte
  CudaStream const stream;                // the others wait
  PLAIT_CHECK_CUDA(cudaMemsetAsync(flags_of(world_.rank()), past_all_numbers, flag_bytes(), stream));
  PLAIT_CHECK_CUDA(cudaStreamSynchronize(stream));
}

/// The steps of the introduction.
class Introduction {
 public:
  explicit Introduction(World const& world) : world_(world) {}

  /// Makes what others reach; returns what they need for it.
  std::vector<std::byte> present() {
    links_ = std::make_unique<PeerLinks>(world_);
    std::size_t const bytes = links_->flag_bytes();
    auto const shared =
        SharedAllocations().share({.data = links_->own_flags_.at_least(bytes), .width = bytes});
    if (!shared) throw CommError("its device memory cannot be shared with other processes");
    std::vector<std::byte> card;
    append(std::span(&*shared, 1), card);
    append(std::span<char const>(links_->mail.name()), card);
    return card;
  }

  /// Reaches for what others have made: a word for each, by stream and by note.
  void greet(std::vector<std::vector<std::byte>> const& cards) {
    std::vector<std::string> mailboxes;
    for (auto const& card : cards) {
      SharedRows shared{};
      std::memcpy(&shared, card.data(), sizeof shared);
      mailboxes.emplace_back(text(std::span(card).subspan(sizeof shared)));
      links_->flags_.push_back(reinterpret_cast<std::uint64_t*>(links_->opened_.open(shared).data));
    }
    links_->mail.open(mailboxes);
    CudaStream const stream;
    StreamFlags flags(stream);
    for (int peer = 0; peer < world_.size(); ++peer) {
      std::uint64_t const mine = word(world_.rank(), peer);
      flags.write(links_->sent({world_.rank(), peer}), mine);
      links_->mail.post(peer, std::as_bytes(std::span(&mine, 1)));
    }
    flags.queue();
    PLAIT_CHECK_CUDA(cudaStreamSynchronize(stream));
  }

  /// Reads what others have written, and waits for it as exchanges will.
  void check() {
    links_->mail.forget_name();
    for (int peer = 0; peer < world_.size(); ++peer) {
      std::uint64_t const expected = word(peer, world_.rank());
      std::uint64_t found = 0;
      std::uint64_t* const flag = links_->sent({peer, world_.rank()});
      PLAIT_CHECK_CUDA(cudaMemcpy(&found, flag, sizeof found, cudaMemcpyDeviceToHost));
      std::vector<std::byte> note;
      if (found != expected || !links_->mail.take(peer, note) || note.size() != sizeof expected ||
          std::memcmp(note.data(), &expected, sizeof expected) != 0) {
        throw CommError(fmt::format("what rank {} wrote into its memory did not arrive", peer));
      }
      CudaStream const stream;
      StreamFlags flags(stream);
      flags.await(flag, expected);
      flags.queue();
      PLAIT_CHECK_CUDA(cudaStreamSynchronize(stream));
    }
    PLAIT_CHECK_CUDA(cudaMemset(links_->flags_of(world_.rank()), 0, links_->flag_bytes()));
    PLAIT_CHECK_CUDA(cudaDeviceSynchronize());
  }

  std::unique_ptr<PeerLinks> take() { return std::move(links_); }

 private:
  World const& world_;
  std::unique_ptr<PeerLinks> links_;
};

PeerIntroduction introduce(World const& world) {
  Introduction introduction(world);
  Steps steps(world);
  auto const cards = steps.take([&] { return introduction.present(); });
  (void)steps.take([&] {
    introduction.greet(cards);
    return std::vector<std::byte>();
  });
  (void)steps.take([&] {
    introduction.check();
    return std::vector<std::byte>();
  });
  if (!steps.refusal().empty()) return {.refusal = steps.refusal()};
  return {.links = introduction.take()};
}

}  // namespace plait
