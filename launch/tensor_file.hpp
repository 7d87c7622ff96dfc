// Tensor files: each rank reads and writes its own byte ranges. Built on pread and pwrite, never mmap: a file
// that shrinks under a map is a signal, here it is a FileError.
#pragma once

#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "safetensors.hpp"

namespace plait {

/// An open file; closes it when destroyed.
class [[nodiscard]] FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int raw) : raw_(raw) {}
  FileDescriptor(FileDescriptor&& other) noexcept : raw_(std::exchange(other.raw_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~FileDescriptor();

  [[nodiscard]] int get() const { return raw_; }
  [[nodiscard]] int release() { return std::exchange(raw_, -1); }

 private:
  int raw_ = -1;
};

/// Bytes of the rows in `rows` (along `axis`) of a tensor.
/// @param file  names the tensor's file in errors
/// @throws FileError if the tensor has no such axis or rows, or its rows do not fall on whole bytes
[[nodiscard]] std::uint64_t rows_bytes(TensorInfo const& tensor, std::size_t axis,
                                       std::span<Slice const> rows, std::string_view file);

/// A safetensors file, open for reading. Reading is safe from several threads at once.
class [[nodiscard]] TensorReader {
 public:
  /// Reads the header, and no data. @throws FileError if the file can't be opened, is no regular file, or is
  /// refused
  explicit TensorReader(std::filesystem::path path);

  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  [[nodiscard]] std::vector<TensorInfo> const& tensors() const { return header_.tensors; }
  [[nodiscard]] Metadata const& metadata() const { return header_.metadata; }
  /// Where the data start in the file.
  [[nodiscard]] std::uint64_t data_offset() const { return data_offset_; }
  [[nodiscard]] bool contains(std::string_view name) const;
  /// @throws FileError that lists the tensors that there are
  [[nodiscard]] TensorInfo const& tensor(std::string_view name) const;

  /// The whole tensor. @param target  tensor.bytes() long
  /// @throws FileError if the system fails, or the file was truncated after it was opened
  void read(TensorInfo const& tensor, std::span<std::byte> target) const;
  [[nodiscard]] std::vector<std::byte> read(TensorInfo const& tensor) const;

  /// The rows in `rows` along `axis`, slice after slice: a tensor [outer…, n, inner…] becomes the dense
  /// [outer…, Σ sizes, inner…]. For k [B, N, H, D] that is axis 1, for lse [B, H, N] axis 2. Ranges that
  /// touch are read at once.
  /// @param target  rows_bytes(tensor, axis, rows) long
  /// @throws FileError as rows_bytes and read; std::invalid_argument if the target has another length
  void read_rows(TensorInfo const& tensor, std::size_t axis, std::span<Slice const> rows,
                 std::span<std::byte> target) const;

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t data_offset_ = 0;
  SafetensorsHeader header_;
};

/// FILE.part on disk. Removes it when destroyed, unless it was released or another file took its place.
class [[nodiscard]] PartFile {
 public:
  PartFile(std::filesystem::path path, int file);
  PartFile(PartFile&& other) noexcept;
  PartFile& operator=(PartFile&&) = delete;
  ~PartFile();

  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  [[nodiscard]] bool in_place() const;  ///< whether the path still leads to the file that was opened
  void release() { armed_ = false; }

 private:
  std::filesystem::path path_;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
  bool armed_ = true;
};

/// A safetensors file written by many ranks at once, each its own rows, into FILE.part; FILE appears whole or
/// not at all. One rank creates; then the others join; all write and close; then the creator commits. The
/// caller puts a barrier between these steps. A writer destroyed before it is done (closed; for the creator,
/// committed) removes FILE.part: a file that lacks a rank's rows can't be committed.
class [[nodiscard]] TensorWriter {
 public:
  /// Makes FILE.part in its full size, with its header; a FILE.part left by a job that was killed is
  /// replaced.
  /// @throws FileError if the disk has no room (found here where the file system can reserve), the path can't
  /// be
  ///         written, or names something that is not a regular file (a device, a directory)
  static TensorWriter create(std::filesystem::path path, std::span<NewTensor const> tensors,
                             Metadata const& metadata = {});
  /// Opens the FILE.part that another rank created. @throws FileError
  static TensorWriter join(std::filesystem::path path);

  /// @throws FileError that lists the tensors that there are
  [[nodiscard]] TensorInfo const& tensor(std::string_view name) const;

  /// The whole tensor. @throws FileError if the system fails (with its message)
  void write(TensorInfo const& tensor, std::span<std::byte const> source);

  /// The counterpart of TensorReader::read_rows. @throws FileError as rows_bytes and write
  void write_rows(TensorInfo const& tensor, std::size_t axis, std::span<Slice const> rows,
                  std::span<std::byte const> source);

  /// Brings what this rank wrote to the disk. Errors of delayed writes surface here. @throws FileError
  void close();

  /// The creator alone, after every rank's close: renames FILE.part to FILE.
  /// @throws FileError if FILE.part is not the one that was created any more; std::logic_error if called on a
  ///         writer that joined or is not closed
  void commit();

 private:
  enum class Role : std::uint8_t { creator, joiner };
  TensorWriter(Role role, std::filesystem::path path, FileDescriptor file);

  Role role_;
  std::filesystem::path path_;
  FileDescriptor file_;
  PartFile part_;
  std::uint64_t data_offset_ = 0;
  SafetensorsHeader header_;
};

}  // namespace plait
