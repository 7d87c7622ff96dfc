// The messages of one round under way: cut into chunks, posted, tested, checked, counted.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "comm_thread.hpp"
#include "plait/transport.hpp"

namespace plait {

/// What every message begins with; checked on arrival.
struct MessageHeader {
  std::uint64_t magic = 0;
  std::uint64_t round = 0;
  std::uint64_t sequence = 0;  ///< of the message among those from this sender to this receiver
  std::uint64_t block = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(MessageHeader const&, MessageHeader const&) = default;
};

/// Messages so far to and from each peer; the next one's sequence number.
struct Sequences {
  std::vector<std::uint64_t> sent;
  std::vector<std::uint64_t> received;
};

/// How names get into errors.
struct Naming {
  std::function<std::string(int)> peer;             ///< "rank 3 (host b)"
  std::function<std::string(std::uint64_t)> block;  ///< "kv [0, 512) of rank 3"
};

/// One message: its header and pieces as a stream of chunks of at most `chunk_bytes` payload, so that counts
/// fit an int and progress on long messages is seen. Chunks of a pair match in order: MPI does not overtake.
class MessageStream {
 public:
  MessageStream(Message message, MessageHeader header, Flight::Direction direction);

  /// Posts all chunks on `communicator`, appending to the requests and, alike, to `owners`.
  void post(MPI_Comm communicator, std::size_t chunk_bytes, std::vector<MPI_Request>& requests,
            std::vector<std::pair<MessageStream*, std::size_t>>& owners);
  /// A chunk is done. @throws CommError if what arrived is not what was expected
  void complete(std::size_t chunk, MPI_Status const& status, Naming const& naming);

  [[nodiscard]] bool done() const { return open_chunks_ == 0; }
  [[nodiscard]] Flight::Direction direction() const { return direction_; }
  [[nodiscard]] Message const& message() const { return message_; }
  [[nodiscard]] std::uint64_t moved_bytes() const { return moved_bytes_; }
  [[nodiscard]] std::chrono::steady_clock::time_point end() const { return end_; }
  /// "receiving kv [0, 512) of rank 3 (100 of 200 bytes outstanding)"
  [[nodiscard]] std::string describe(Naming const& naming) const;

 private:
  /// Bytes of chunk `index`, the header's included.
  [[nodiscard]] std::size_t chunk_size(std::size_t index) const { return chunk_sizes_[index]; }
  void post_chunk(MPI_Comm communicator, std::vector<StridedRegion> const& pieces,
                  MPI_Request& request) const;

  Message message_;
  MessageHeader header_;
  MessageHeader expected_;
  Flight::Direction direction_;
  std::uint64_t total_bytes_;
  std::uint64_t moved_bytes_ = 0;
  std::size_t open_chunks_ = 0;
  std::vector<std::size_t> chunk_sizes_;
  std::chrono::steady_clock::time_point end_;
};

/// One exchange. After a failure it is kept for ever, with all that its requests may touch.
class ExchangeOperation : public Operation {
 public:
  ExchangeOperation(World::CommThread& thread, MPI_Comm communicator, std::size_t chunk_bytes,
                    Exchange exchange, Sequences& sequences, Naming naming, std::shared_ptr<void> keep_alive);
  Status poll() override;

  /// After the end.
  [[nodiscard]] std::vector<Flight> flights() const;
  void add_traffic(Traffic& traffic) const;

 private:
  void start();
  [[nodiscard]] bool test();
  void give_up_on_lost();
  [[nodiscard]] std::string where() const;

  World::CommThread& thread_;
  MPI_Comm communicator_;
  std::size_t chunk_bytes_;
  std::uint64_t round_;
  Naming naming_;
  std::shared_ptr<void> keep_alive_;
  Patience patience_;
  bool started_ = false;
  std::chrono::steady_clock::time_point start_;
  std::vector<MessageStream> receives_;
  std::vector<MessageStream> sends_;
  std::vector<MPI_Request> requests_;
  std::vector<std::pair<MessageStream*, std::size_t>> owners_;  ///< per request: its stream and chunk
};

}  // namespace plait
