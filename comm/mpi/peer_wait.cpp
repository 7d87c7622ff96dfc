#include "peer_wait.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "comm_thread.hpp"
#include "plait/comm_error.hpp"

namespace plait {
namespace {

/// Waits that are longer cost the communication thread's attention.
constexpr auto short_wait = std::chrono::milliseconds(20);

}  // namespace

/// Asks until the wait is over or must be given up.
class PeerWait::Questions : public Operation {
 public:
  Questions(World const& world, std::vector<int> peers, std::string waiting, std::string meanwhile)
      : world_(world),
        peers_(std::move(peers)),
        waiting_(std::move(waiting)),
        meanwhile_(std::move(meanwhile)),
        patience_(world.thread().liveness()) {}

  Status poll() override {
    if (over_) return Status::done;
    auto const lost = patience_.lost(peers_);
    if (!lost) return Status::idle;
    throw PeerLost(fmt::format("{}: {}, while {}", waiting_, who_is_lost(*lost), meanwhile_));
  }
  void end() { over_ = true; }

 private:
  [[nodiscard]] std::string who_is_lost(Patience::Lost const& lost) const {
    if (!lost.answers || peers_.size() == 1) {
      return fmt::format("{} {}", world_.describe(lost.peer), lost.describe("moved its part"));
    }
    return fmt::format("ranks {} are alive but not all of them have moved their part for {:.1f} s",
                       fmt::join(peers_, ", "), lost.silent_seconds);
  }

  World const& world_;
  std::vector<int> peers_;
  std::string waiting_;
  std::string meanwhile_;
  Patience patience_;
  std::atomic<bool> over_ = false;
};

PeerWait::PeerWait(World const& world, std::vector<int> peers, std::function<std::string()> waiting,
                   std::function<std::string()> meanwhile)
    : world_(world),
      peers_(std::move(peers)),
      waiting_(std::move(waiting)),
      meanwhile_(std::move(meanwhile)) {}

PeerWait::~PeerWait() {
  if (questions_) questions_->end();
}

void PeerWait::pause() {
  std::this_thread::yield();
  if (!questions_) {
    if (Clock::now() - start_ < std::min<Clock::duration>(short_wait, world_.timeout() / 8)) return;
    std::erase(peers_, world_.rank());
    questions_ = std::make_shared<Questions>(world_, peers_, waiting_(), meanwhile_());
    answered_ = questions_->future();
    world_.thread().submit(questions_);
  }
  if (answered_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) answered_.get();
}

}  // namespace plait
