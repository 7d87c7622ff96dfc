// This process as a rank of an MPI job: start, steps that all ranks pass or fail together, and the end.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "exit_code.hpp"
#include "plait/world.hpp"

namespace plait {

/// MPI from MPI_Init_thread to MPI_Finalize, and its World. Without a launcher it is a job of one rank.
class [[nodiscard]] Job {
 public:
  /// @throws CommError if MPI can't be had with MPI_THREAD_MULTIPLE
  explicit Job(WorldOptions options);
  ~Job();
  Job(Job const&) = delete;
  Job& operator=(Job const&) = delete;

  [[nodiscard]] World const& world() const { return *world_; }
  [[nodiscard]] bool speaks() const { return world_->rank() == 0; }

  /// Runs `work` on every rank, then compares notes: if it threw on any rank, rank 0 prints each different
  /// message once, with the ranks that it concerns, and every rank throws Reported. Collective. Errors
  /// between ranks (CommError, but for Disagreement, which all ranks see) and std::bad_alloc pass through.
  template <class Work>
  auto together(std::string const& what, Work&& work) const {
    if constexpr (std::is_void_v<std::invoke_result_t<Work>>) {
      settle(what, failure_of([&] { work(); }));
    } else {
      std::optional<std::invoke_result_t<Work>> result;
      settle(what, failure_of([&] { result.emplace(work()); }));
      return std::move(*result);
    }
  }

  /// Every rank's copy of a plain value, in rank order. Collective.
  template <class Value>
  std::vector<Value> gather(Value const& mine, std::string const& what) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    std::vector<Value> all;
    for (auto const& bytes : world_->all_gather(std::as_bytes(std::span(&mine, 1)), what)) {
      std::memcpy(&all.emplace_back(), bytes.data(), sizeof(Value));
    }
    return all;
  }

  /// Every rank's list of plain values, joined in rank order. Collective.
  template <class Value>
  std::vector<Value> gather_list(std::span<Value const> mine, std::string const& what) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    std::vector<Value> all;
    for (auto const& bytes : world_->all_gather(std::as_bytes(mine), what)) {
      std::size_t const old = all.size();
      all.resize(old + bytes.size() / sizeof(Value));
      if (!bytes.empty()) std::memcpy(all.data() + old, bytes.data(), bytes.size());
    }
    return all;
  }

 private:
  struct Failure {
    ExitCode code = ExitCode::done;
    std::string message = {};
  };
  template <class Work>
  static Failure failure_of(Work&& work) {
    try {
      work();
    } catch (...) {
      return current_failure();
    }
    return {};
  }
  /// Of the exception being handled; rethrows those that must pass.
  static Failure current_failure();
  void settle(std::string const& what, Failure const& mine) const;

  struct Mpi {
    Mpi();
    ~Mpi();
    Mpi(Mpi const&) = delete;
    Mpi& operator=(Mpi const&) = delete;
  } mpi_;
  std::optional<World> world_;
};

}  // namespace plait
