// Notes between processes of one host, in memory that all of them map: no call of the system, and no thread
// but the writer's and the reader's takes part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace plait {

/// Memory of a name that other processes of the host may map.
class NamedMemory {
 public:
  /// New memory, of zeros. @throws CommError if the host has none left
  [[nodiscard]] static NamedMemory create(std::size_t bytes);
  /// Another process's. @throws CommError
  [[nodiscard]] static NamedMemory open(std::string const& name, std::size_t bytes);
  ~NamedMemory();
  NamedMemory(NamedMemory&& other) noexcept;
  NamedMemory& operator=(NamedMemory&&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::string const& name() const { return name_; }
  /// Nobody can open it any more; those who have keep it.
  void forget_name();

 private:
  NamedMemory(std::string name, std::byte* data, std::size_t bytes, bool owned)
      : name_(std::move(name)), data_(data), bytes_(bytes), owned_(owned) {}

  std::string name_;
  std::byte* data_;
  std::size_t bytes_;
  bool owned_;  ///< its name is still to be removed
};

/// What one rank has for the notes of all others, and the other ranks', to leave notes in.
class Mailboxes {
 public:
  static constexpr std::size_t most_note_bytes = 16384;

  /// @throws CommError if the host has too little memory to share
  Mailboxes(int ranks, int rank);
  ~Mailboxes();
  Mailboxes(Mailboxes const&) = delete;
  Mailboxes& operator=(Mailboxes const&) = delete;

  /// By which others open this rank's.
  [[nodiscard]] std::string const& name() const { return own_.name(); }
  /// Opens those of all ranks, named in rank order. @throws CommError
  void open(std::vector<std::string> const& names);
  /// Once all ranks have opened this one's: then no crash leaves anything behind.
  void forget_name() { own_.forget_name(); }

  /// Leaves a note of at most `most_note_bytes` for a rank; it may have to go later, with `send_waiting`.
  void post(int to, std::span<std::byte const> note);
  /// Sends notes for which there was no room; returns whether all have gone.
  bool send_waiting();
  /// The next note from a rank, in the order in which it posted them; false if there is none yet.
  [[nodiscard]] bool take(int from, std::vector<std::byte>& note);

  /// This rank has come to its next barrier; returns the barrier's number, which all ranks count alike.
  std::uint64_t come_to_barrier();
  /// Whether a rank has come to that barrier.
  [[nodiscard]] bool has_come(int rank, std::uint64_t barrier) const;

 private:
  struct Box;
  struct Hall;

  [[nodiscard]] Box& box_of(int owner, int writer) const;
  [[nodiscard]] Hall& hall_of(int owner) const;
  bool try_post(int to, std::span<std::byte const> note);

  int ranks_;
  int rank_;
  NamedMemory own_;
  std::vector<std::unique_ptr<NamedMemory>> others_;         ///< by rank; none for this one
  std::vector<std::deque<std::vector<std::byte>>> waiting_;  ///< by rank, what there was no room for
  std::uint64_t barriers_ = 0;
};

}  // namespace plait
