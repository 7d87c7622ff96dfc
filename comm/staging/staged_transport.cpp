#include "staged_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "../exchange_order.hpp"
#include "../pieces.hpp"

namespace plait {
namespace {

/// Chunks of a message that have a buffer: one is copied while another is sent.
constexpr std::size_t buffers = 2;

/// One direction of an exchange: its messages, their buffers, and the queue that copies between the two.
class Lane {
 public:
  Lane(std::unique_ptr<CopyQueue> copies, Copy direction, std::size_t chunk_bytes)
      : copies_(std::move(copies)), direction_(direction), chunk_bytes_(chunk_bytes) {}

  void begin(std::vector<Message> messages, std::uint64_t round) {
    auto const direction = direction_ == Copy::gather ? Flight::Direction::send : Flight::Direction::receive;
    messages_ = std::move(messages);
    flights_.assign(messages_.size(), {.direction = direction, .round = round});
    for (std::size_t i = 0; i < messages_.size(); ++i) flights_[i].message = i;
    copies_->follow_work();
  }
  /// Gives every message its share of each buffer. May wait for copies of the exchange before.
  void make_room() {
    offsets_.clear();
    std::size_t bytes = 0;
    for (Message const& message : messages_) {
      offsets_.push_back(bytes);
      bytes += std::min(message.bytes(), chunk_bytes_);
    }
    if (bytes == buffer_bytes_) return;
    // The buffers lie elsewhere from now on: where another one was still being copied, perhaps.
    for (std::size_t mark = 0; mark < buffers; ++mark) copies_->await(mark);
    buffer_bytes_ = bytes;
    if (buffers * bytes <= memory_bytes_) return;
    memory_ = copies_->allocate(buffers * bytes);
    memory_bytes_ = buffers * bytes;
  }
  /// Chunks of the longest message; a message of 0 bytes has one too.
  [[nodiscard]] std::size_t steps() const {
    std::size_t most = 0;
    for (Message const& message : messages_) most = std::max(most, chunks(message));
    return most;
  }
  /// Queues the copies between the messages' chunks of a step and their buffers.
  void copy(std::size_t step) {
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      if (step >= chunks(messages_[i])) continue;
      copies_->copy(direction_, cut(messages_[i].pieces, step * chunk_bytes_, chunk_bytes_), buffer(step, i));
    }
    copies_->set(step % buffers);
  }
  /// Returns when the step's buffer is filled, or free again.
  void await(std::size_t step) { copies_->await(step % buffers); }
  /// The messages' chunks of a step, in host memory; `origins` gets each one's message.
  [[nodiscard]] std::vector<Message> staged(std::size_t step, std::vector<std::size_t>& origins) const {
    std::vector<Message> list;
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      if (step >= chunks(messages_[i])) continue;
      std::size_t const bytes = std::min(messages_[i].bytes() - step * chunk_bytes_, chunk_bytes_);
      list.push_back(
          {.peer = messages_[i].peer, .block = messages_[i].block, .pieces = {{buffer(step, i), bytes}}});
      origins.push_back(i);
    }
    return list;
  }
  [[nodiscard]] CopyQueue& copies() { return *copies_; }
  [[nodiscard]] std::shared_ptr<std::byte> const& memory() const { return memory_; }
  [[nodiscard]] std::vector<Flight> const& flights() const { return flights_; }
  [[nodiscard]] Flight& flight(std::size_t message) { return flights_[message]; }

 private:
  [[nodiscard]] std::size_t chunks(Message const& message) const {
    return std::max<std::size_t>(1, (message.bytes() + chunk_bytes_ - 1) / chunk_bytes_);
  }
  [[nodiscard]] std::byte* buffer(std::size_t step, std::size_t message) const {
    return memory_.get() + step % buffers * buffer_bytes_ + offsets_[message];
  }

  std::unique_ptr<CopyQueue> copies_;
  Copy direction_;
  std::size_t chunk_bytes_;
  std::vector<Message> messages_;
  std::vector<Flight> flights_;       ///< of each message so far
  std::vector<std::size_t> offsets_;  ///< of each message's share of a buffer
  std::size_t buffer_bytes_ = 0;
  std::shared_ptr<std::byte> memory_;  ///< only grows
  std::size_t memory_bytes_ = 0;
};

class StagedTransport : public Transport {
 public:
  StagedTransport(std::unique_ptr<Transport> inner, std::unique_ptr<CopyQueue> out,
                  std::unique_ptr<CopyQueue> in, std::size_t chunk_bytes)
      : inner_(std::move(inner)),
        out_(std::move(out), Copy::gather, chunk_bytes),
        in_(std::move(in), Copy::scatter, chunk_bytes) {}

  std::string describe() const override { return fmt::format("{}, staged", inner_->describe()); }
  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    inner_->name_blocks(std::move(namer));
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    require_finished(started_);
    round_ = exchange.round;
    keep_alive_ = std::move(keep_alive);
    // Copies out read what was computed; copies in overwrite what was read.
    out_.begin(std::move(exchange.sends), round_);
    in_.begin(std::move(exchange.receives), round_);
    out_.make_room();
    for (std::size_t step = 0; step < std::min(buffers, out_.steps()); ++step) out_.copy(step);
    started_ = true;
  }

  void finish() override {
    require_started(std::exchange(started_, false));
    in_.make_room();
    std::size_t const steps = std::max(out_.steps(), in_.steps());
    for (std::size_t step = 0; step < steps; ++step) move(step);
    in_.copies().lead_work();
    for (Lane const* lane : {&out_, &in_}) {
      flights_.insert(flights_.end(), lane->flights().begin(), lane->flights().end());
    }
  }

  void complete(std::string const&) override { in_.copies().await_all(); }
  std::vector<Flight> take_flights() override { return std::exchange(flights_, {}); }
  void barrier(std::string const& what) override { inner_->barrier(what); }
  Traffic traffic() const override { return inner_->traffic(); }

 private:
  /// Chunk number `step` of every message that has so many: both sides cut alike, so the steps match.
  void move(std::size_t step) {
    out_.await(step);
    in_.await(step);
    std::vector<std::size_t> sends;
    std::vector<std::size_t> receives;
    // After a failure requests may go on touching the buffers, whatever becomes of this transport.
    auto const touched = std::make_shared<std::pair<std::shared_ptr<std::byte>, std::shared_ptr<std::byte>>>(
        out_.memory(), in_.memory());
    inner_->start(
        {.round = round_, .sends = out_.staged(step, sends), .receives = in_.staged(step, receives)},
        touched);
    inner_->finish();
    if (step < in_.steps()) in_.copy(step);
    if (step + buffers < out_.steps()) out_.copy(step + buffers);
    for (Flight const& part : inner_->take_flights()) {
      bool const sent = part.direction == Flight::Direction::send;
      Flight& whole = sent ? out_.flight(sends[part.message]) : in_.flight(receives[part.message]);
      if (step == 0) whole.start = part.start;
      whole.end = part.end;
    }
  }

  std::unique_ptr<Transport> inner_;
  Lane out_;
  Lane in_;
  std::uint64_t round_ = 0;
  std::shared_ptr<void> keep_alive_;
  bool started_ = false;
  std::vector<Flight> flights_;
};

}  // namespace

std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner,
                                                 std::unique_ptr<CopyQueue> out,
                                                 std::unique_ptr<CopyQueue> in, std::size_t chunk_bytes) {
  return std::make_unique<StagedTransport>(std::move(inner), std::move(out), std::move(in), chunk_bytes);
}

}  // namespace plait
