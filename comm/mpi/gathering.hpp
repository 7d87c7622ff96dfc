// All-gather of byte strings of any length, by point-to-point messages through rank 0: so a rank that does
// not take part is known by name.
#pragma once

#include <string>
#include <vector>

#include "comm_thread.hpp"

namespace plait {

class Gathering : public Operation {
 public:
  /// @param communicator  on which no other gathering goes on at the same time
  /// @param describe_peer  "rank 3 (host b)"
  Gathering(World::CommThread& thread, MPI_Comm communicator, std::vector<std::byte> mine, std::string what,
            std::function<std::string(int)> describe_peer);
  Status poll() override;
  /// Every rank's bytes; after the end.
  [[nodiscard]] std::vector<std::vector<std::byte>> take() { return std::move(parts_); }

 private:
  void start();
  /// Receives what has come from `peer`, if it has.
  bool receive(int peer, std::vector<std::byte>& into);
  void send(int peer, std::vector<std::byte> const& bytes);
  Status poll_root();
  Status poll_leaf();
  bool sends_are_done();
  void give_up_on_lost();

  World::CommThread& thread_;
  MPI_Comm communicator_;
  std::string what_;
  std::function<std::string(int)> describe_peer_;
  Patience patience_;
  bool started_ = false;
  bool collected_ = false;
  std::vector<std::vector<std::byte>> parts_;
  std::vector<int> missing_;       ///< ranks whose bytes have not come
  std::vector<std::byte> packed_;  ///< all parts, each after its length
  std::vector<MPI_Request> sends_;
};

}  // namespace plait
