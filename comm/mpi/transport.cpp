#include "transport.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "../exchange_order.hpp"
#include "exchange.hpp"
#include "gathering.hpp"
#include "reduction.hpp"

namespace plait {
namespace {

class MpiTransport : public Transport {
 public:
  MpiTransport(World const& world, std::size_t chunk_bytes)
      : world_(world),
        chunk_bytes_(chunk_bytes),
        communicator_(world.thread().duplicate(world.thread().communicator())) {
    std::vector<std::uint64_t> const none(static_cast<std::size_t>(world.size()));
    traffic_ = {.sent = none, .received = none};
    sequences_ = {.sent = none, .received = none};
    naming_.peer = [&world](int rank) { return world.describe(rank); };
    naming_.block = [](std::uint64_t block) { return fmt::format("block {}", block); };
  }

  /// An exchange that was not finished, because something else failed meanwhile, is polled no more: it would
  /// call names of blocks that the caller takes down next.
  ~MpiTransport() override {
    if (current_) World::CommThread::abandon(*current_, done_);
    world_.thread().free(communicator_);
  }

  std::string describe() const override { return "mpi"; }

  void name_blocks(std::function<std::string(std::uint64_t)> namer) override {
    naming_.block = std::move(namer);
  }

  void start(Exchange exchange, std::shared_ptr<void> keep_alive) override {
    require_finished(current_ != nullptr);
    current_ =
        std::make_shared<ExchangeOperation>(world_.thread(), communicator_, chunk_bytes_, std::move(exchange),
                                            sequences_, naming_, std::move(keep_alive));
    done_ = current_->future();
    world_.thread().submit(current_);
  }

  void finish() override {
    require_started(current_ != nullptr);
    auto const exchange = std::exchange(current_, nullptr);
    world_.thread().await(*exchange, done_);
    exchange->add_traffic(traffic_);
    auto const flights = exchange->flights();
    flights_.insert(flights_.end(), flights.begin(), flights.end());
  }

  void reduce_scatter(ReduceScatter const& work, Operator const& combine,
                      std::shared_ptr<void> keep_alive) override {
    if (current_)
      throw std::logic_error("a transport's reduction is started before its exchange is finished");
    auto const reduction = std::make_shared<Reduction>(world_.thread(), communicator_, work, combine, naming_,
                                                       std::move(keep_alive));
    world_.thread().run(reduction);
    reduction->add_traffic(traffic_);
  }

  void complete(std::string const&) override {}  // finish has waited
  std::vector<Flight> take_flights() override { return std::exchange(flights_, {}); }

  void barrier(std::string const& what) override {
    world_.thread().run(std::make_shared<Gathering>(world_.thread(), communicator_, std::vector<std::byte>{},
                                                    fmt::format("{}: {}", naming_.peer(world_.rank()), what),
                                                    naming_.peer));
  }

  Traffic traffic() const override { return traffic_; }

 private:
  World const& world_;
  std::size_t chunk_bytes_;
  MPI_Comm communicator_;
  Naming naming_;
  Sequences sequences_;
  Traffic traffic_;
  std::vector<Flight> flights_;
  std::shared_ptr<ExchangeOperation> current_;
  std::future<void> done_;
};

}  // namespace

std::unique_ptr<Transport> make_mpi_transport(World const& world, std::size_t chunk_bytes) {
  return std::make_unique<MpiTransport>(world, chunk_bytes);
}

std::unique_ptr<Transport> make_mpi_transport(World const& world) {
  return make_mpi_transport(world, default_chunk_bytes);
}

}  // namespace plait
