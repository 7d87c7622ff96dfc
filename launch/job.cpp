#include "job.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <new>

#include "log.hpp"
#include "plait/comm_error.hpp"

namespace plait {

Job::Mpi::Mpi() {
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
    throw CommError("MPI_Init_thread failed");
  }
}
Job::Mpi::~Mpi() {
  MPI_Finalize();
}

Job::Job(WorldOptions options) {
  world_.emplace(MPI_COMM_WORLD, options);
}
Job::~Job() = default;

Job::Failure Job::current_failure() {
  try {
    throw;
  } catch (Disagreement const& error) {
    return {.code = ExitCode::failed, .message = error.what()};
  } catch (CommError const&) {
    throw;
  } catch (std::bad_alloc const&) {
    throw;
  } catch (std::exception const& error) {
    return {.code = exit_code(error), .message = error.what()};
  }
}

void Job::settle(std::string const& what, Failure const& mine) const {
  std::vector<std::byte> note(1 + mine.message.size());
  note[0] = static_cast<std::byte>(mine.code);
  std::memcpy(note.data() + 1, mine.message.data(), mine.message.size());
  auto const notes = world_->all_gather(note, what);
  std::map<std::string, std::vector<std::size_t>> ranks_by_message;
  ExitCode code = ExitCode::done;
  for (std::size_t rank = 0; rank < notes.size(); ++rank) {
    auto const found = static_cast<ExitCode>(notes[rank].at(0));
    if (found == ExitCode::done) continue;
    code = code == ExitCode::done ? found : code;
    std::string const message(reinterpret_cast<char const*>(notes[rank].data()) + 1, notes[rank].size() - 1);
    ranks_by_message[message].push_back(rank);
  }
  if (code == ExitCode::done) return;
  if (speaks()) {
    for (auto const& [message, ranks] : ranks_by_message) {
      bool const all = ranks.size() == notes.size();
      std::string const& host = world_->places()[ranks.front()].host;
      std::string const whom =
          all ? "" : fmt::format(" (on ranks {} of {})", fmt::join(ranks, ", "), notes.size());
      if (notes.size() == 1) {
        log_line(message);
      } else {
        log_line(static_cast<int>(ranks.front()), host, message + whom);
      }
    }
  }
  throw Reported(code);
}

}  // namespace plait
