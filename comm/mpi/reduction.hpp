// A reduce-scatter by MPI's own collective, with an operator that MPI does not know: started without
// blocking, and polled with a deadline like all else.
#pragma once

#include "comm_thread.hpp"
#include "exchange.hpp"

namespace plait {

class Reduction : public Operation {
 public:
  /// @param communicator  on which all ranks start their reductions in the same order
  Reduction(World::CommThread& thread, MPI_Comm communicator, ReduceScatter work, Operator combine,
            Naming naming, std::shared_ptr<void> keep_alive);
  Status poll() override;

  /// After the end.
  void add_traffic(Traffic& traffic) const;

 private:
  void start();
  void give_up_on_lost();

  World::CommThread& thread_;
  MPI_Comm communicator_;
  ReduceScatter work_;
  Operator operator_;
  Naming naming_;
  std::shared_ptr<void> keep_alive_;
  Patience patience_;
  std::vector<int> counts_;  ///< as MPI takes them
  MPI_Datatype element_ = MPI_DATATYPE_NULL;
  MPI_Op op_ = MPI_OP_NULL;
  MPI_Request request_ = MPI_REQUEST_NULL;
  bool started_ = false;
};

}  // namespace plait
