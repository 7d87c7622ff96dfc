#include "exit_code.hpp"

#include "plait/comm_error.hpp"
#include "plait/mask.hpp"

namespace plait {

ExitCode exit_code(std::exception const& error) {
  if (auto const* reported = dynamic_cast<Reported const*>(&error)) return reported->code();
  if (dynamic_cast<PeerLost const*>(&error) != nullptr) return ExitCode::peer_lost;
  bool const is_usage = dynamic_cast<UsageError const*>(&error) != nullptr ||
                        dynamic_cast<InvalidProblem const*>(&error) != nullptr;
  return is_usage ? ExitCode::usage : ExitCode::failed;
}

}  // namespace plait
