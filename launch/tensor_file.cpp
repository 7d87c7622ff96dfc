#include "tensor_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <stdexcept>
#include <system_error>

namespace plait {
namespace {

namespace fs = std::filesystem;

/// One call moves at most this much: Linux stops a little under 2^31 bytes anyway.
constexpr std::uint64_t max_call_bytes = std::uint64_t{1} << 30;

/// The system's last error, as a FileError.
[[nodiscard]] FileError system_error(fs::path const& path, std::string_view action) {
  return FileError(
      fmt::format("{}: {} failed: {}", path.string(), action, std::generic_category().message(errno)));
}

/// Calls until the call is not interrupted by a signal.
template <class Call>
auto uninterrupted(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

FileDescriptor open_file(fs::path const& path, int flags, std::string_view action) {
  constexpr mode_t mode = 0666;  // less the umask
  int const raw = uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
  if (raw < 0) throw system_error(path, action);
  return FileDescriptor(raw);
}

/// Size of a regular file. @throws FileError if it is something else
std::uint64_t regular_file_bytes(fs::path const& path, int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) throw system_error(path, "stat");
  if (!S_ISREG(status.st_mode)) throw FileError(fmt::format("{}: not a regular file", path.string()));
  return static_cast<std::uint64_t>(status.st_size);
}

void read_exactly(int file, std::span<std::byte> target, std::uint64_t offset, fs::path const& path) {
  while (!target.empty()) {
    std::uint64_t const bytes = std::min<std::uint64_t>(target.size(), max_call_bytes);
    auto const moved =
        uninterrupted([&] { return ::pread(file, target.data(), bytes, static_cast<off_t>(offset)); });
    if (moved < 0) {
      throw system_error(path, fmt::format("reading {} bytes at byte {}", target.size(), offset));
    }
    if (moved == 0) {
      throw FileError(
          fmt::format("{}: ends at byte {}, where {} more were to be read: truncated since it was opened",
                      path.string(), offset, target.size()));
    }
    target = target.subspan(static_cast<std::size_t>(moved));
    offset += static_cast<std::uint64_t>(moved);
  }
}

void write_exactly(int file, std::span<std::byte const> source, std::uint64_t offset, fs::path const& path) {
  while (!source.empty()) {
    std::uint64_t const bytes = std::min<std::uint64_t>(source.size(), max_call_bytes);
    auto const moved =
        uninterrupted([&] { return ::pwrite(file, source.data(), bytes, static_cast<off_t>(offset)); });
    if (moved < 0) {
      throw system_error(path, fmt::format("writing {} bytes at byte {}", source.size(), offset));
    }
    if (moved == 0) throw FileError(fmt::format("{}: nothing is written at byte {}", path.string(), offset));
    source = source.subspan(static_cast<std::size_t>(moved));
    offset += static_cast<std::uint64_t>(moved);
  }
}

/// A tensor seen as [outer, rows, inner] about one axis; `row_bytes` is a row of inner elements.
struct AxisView {
  std::uint64_t outer = 1;
  std::uint64_t rows = 0;
  std::uint64_t row_bytes = 0;
};

AxisView view_axis(TensorInfo const& tensor, std::size_t axis, std::string_view file) {
  if (axis >= tensor.shape.size()) {
    throw FileError(fmt::format("{}: tensor \"{}\" has {} axes; axis {} was asked for", file, tensor.name,
                                tensor.shape.size(), axis));
  }
  AxisView view{.rows = static_cast<std::uint64_t>(tensor.shape[axis])};
  std::uint64_t inner = 1;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    if (i != axis) (i < axis ? view.outer : inner) *= static_cast<std::uint64_t>(tensor.shape[i]);
  }
  std::uint64_t const bits = inner * size_bits(tensor.dtype);
  if (bits % 8 != 0) {
    throw FileError(fmt::format("{}: tensor \"{}\": a row along axis {} is {} bits of {}, not whole bytes",
                                file, tensor.name, axis, bits, name(tensor.dtype)));
  }
  view.row_bytes = bits / 8;
  return view;
}

/// Bytes [begin, end) of the tensor's data.
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// Calls use(range) for the ranges that hold the rows, in the order of the dense copy; touching ones as one.
template <class Use>
void for_each_range(AxisView const& view, std::span<Slice const> rows, Use&& use) {
  // Nothing to move can still mean 2^40 outer entries of no rows each.
  if (view.row_bytes == 0 || std::ranges::all_of(rows, &Slice::empty)) return;
  ByteRange pending;
  for (std::uint64_t outer = 0; outer < view.outer; ++outer) {
    for (Slice const slice : rows) {
      if (slice.empty()) continue;
      std::uint64_t const first = outer * view.rows + static_cast<std::uint64_t>(slice.begin);
      ByteRange const next{first * view.row_bytes,
                           (first + static_cast<std::uint64_t>(slice.size())) * view.row_bytes};
      if (pending.end == next.begin) {
        pending.end = next.end;
        continue;
      }
      if (pending.end > pending.begin) use(pending);
      pending = next;
    }
  }
  if (pending.end > pending.begin) use(pending);
}

void check_length(TensorInfo const& tensor, std::uint64_t needed, std::size_t given) {
  if (needed == given) return;
  throw std::invalid_argument(
      fmt::format("tensor \"{}\": {} bytes of memory for {} bytes of rows", tensor.name, given, needed));
}

TensorInfo const* find(std::vector<TensorInfo> const& tensors, std::string_view name) {
  auto const found = std::ranges::find(tensors, name, &TensorInfo::name);
  return found == tensors.end() ? nullptr : &*found;
}

TensorInfo const& find_or_throw(std::vector<TensorInfo> const& tensors, std::string_view name,
                                fs::path const& path) {
  if (TensorInfo const* const found = find(tensors, name)) return *found;
  constexpr std::size_t most = 20;
  std::string names;
  for (std::size_t i = 0; i < std::min(tensors.size(), most); ++i) {
    names += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", tensors[i].name);
  }
  if (tensors.size() > most) names += ", ...";
  throw FileError(fmt::format("{}: no tensor \"{}\"; the file holds {}", path.string(), name,
                              names.empty() ? "no tensors" : names));
}

fs::path part_path(fs::path path) {
  return path += ".part";
}

/// A rename over /dev/null, say, would replace the device itself.
void check_target(fs::path const& path) {
  std::error_code error;
  auto const status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw FileError(
        fmt::format("{}: exists and is not a regular file; an output must be one", path.string()));
  }
}

/// Reserves the disk's room where the file system can; elsewhere a full disk is found by the writes.
void reserve(int file, std::uint64_t bytes, fs::path const& path) {
  if (bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    throw FileError(fmt::format("{}: {} bytes is more than a file can hold", path.string(), bytes));
  }
  auto const size = static_cast<off_t>(bytes);
  if (uninterrupted([&] { return ::fallocate(file, 0, 0, size); }) == 0) return;
  bool const cannot_reserve = errno == EOPNOTSUPP || errno == ENOSYS;
  if (!cannot_reserve || uninterrupted([&] { return ::ftruncate(file, size); }) != 0) {
    throw system_error(path, fmt::format("reserving {} bytes", bytes));
  }
}

/// Makes a rename last through a crash. Not every file system can; the file itself is whole either way.
void sync_directory(fs::path const& file) {
  fs::path const directory = file.has_parent_path() ? file.parent_path() : fs::path(".");
  FileDescriptor const opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.get() >= 0) (void)::fsync(opened.get());
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (raw_ >= 0) ::close(raw_);
}

std::uint64_t rows_bytes(TensorInfo const& tensor, std::size_t axis, std::span<Slice const> rows,
                         std::string_view file) {
  AxisView const view = view_axis(tensor, axis, file);
  std::uint64_t count = 0;
  for (Slice const slice : rows) {
    if (slice.begin < 0 || slice.end < slice.begin || static_cast<std::uint64_t>(slice.end) > view.rows) {
      throw FileError(fmt::format("{}: tensor \"{}\": rows [{}, {}) of axis {}, which has {}", file,
                                  tensor.name, slice.begin, slice.end, axis, view.rows));
    }
    count += static_cast<std::uint64_t>(slice.size());
  }
  return view.outer * count * view.row_bytes;
}

TensorReader::TensorReader(std::filesystem::path path) : path_(std::move(path)) {
  // Without O_NONBLOCK the opening of a pipe would wait for its writer.
  file_ = open_file(path_, O_RDONLY | O_NONBLOCK, "opening it");
  file_bytes_ = regular_file_bytes(path_, file_.get());
  std::string const name = path_.string();
  std::byte prefix[safetensors_prefix_bytes];
  std::size_t const prefix_bytes = std::min<std::uint64_t>(file_bytes_, sizeof prefix);
  read_exactly(file_.get(), std::span(prefix).first(prefix_bytes), 0, path_);
  std::uint64_t const length = parse_header_length(std::span(prefix).first(prefix_bytes), file_bytes_, name);
  data_offset_ = safetensors_prefix_bytes + length;
  std::string json(length, '\0');
  read_exactly(file_.get(), std::as_writable_bytes(std::span(json)), safetensors_prefix_bytes, path_);
  header_ = parse_header(json, file_bytes_ - data_offset_, name);
}

bool TensorReader::contains(std::string_view name) const {
  return find(header_.tensors, name) != nullptr;
}

TensorInfo const& TensorReader::tensor(std::string_view name) const {
  return find_or_throw(header_.tensors, name, path_);
}

void TensorReader::read(TensorInfo const& tensor, std::span<std::byte> target) const {
  check_length(tensor, tensor.bytes(), target.size());
  read_exactly(file_.get(), target, data_offset_ + tensor.begin, path_);
}

std::vector<std::byte> TensorReader::read(TensorInfo const& tensor) const {
  std::vector<std::byte> whole(tensor.bytes());
  read(tensor, whole);
  return whole;
}

void TensorReader::read_rows(TensorInfo const& tensor, std::size_t axis, std::span<Slice const> rows,
                             std::span<std::byte> target) const {
  std::string const file = path_.string();
  check_length(tensor, rows_bytes(tensor, axis, rows, file), target.size());
  for_each_range(view_axis(tensor, axis, file), rows, [&](ByteRange range) {
    std::uint64_t const bytes = range.end - range.begin;
    read_exactly(file_.get(), target.first(bytes), data_offset_ + tensor.begin + range.begin, path_);
    target = target.subspan(bytes);
  });
}

PartFile::PartFile(std::filesystem::path path, int file) : path_(std::move(path)) {
  struct stat status {};
  if (::fstat(file, &status) != 0) throw system_error(path_, "stat");
  device_ = status.st_dev;
  inode_ = status.st_ino;
}

PartFile::PartFile(PartFile&& other) noexcept
    : path_(std::move(other.path_)),
      device_(other.device_),
      inode_(other.inode_),
      armed_(std::exchange(other.armed_, false)) {}

PartFile::~PartFile() {
  if (armed_ && in_place()) ::unlink(path_.c_str());
}

bool PartFile::in_place() const {
  struct stat status {};
  return ::stat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

TensorWriter::TensorWriter(Role role, std::filesystem::path path, FileDescriptor file)
    : role_(role), path_(std::move(path)), file_(std::move(file)), part_(part_path(path_), file_.get()) {}

TensorWriter TensorWriter::create(std::filesystem::path path, std::span<NewTensor const> tensors,
                                  Metadata const& metadata) {
  check_target(path);
  NewHeader made = make_header(tensors, metadata, path.string());
  fs::path const part = part_path(path);
  if (::unlink(part.c_str()) != 0 && errno != ENOENT) throw system_error(part, "removing an old one");
  TensorWriter writer(Role::creator, std::move(path),
                      open_file(part, O_WRONLY | O_CREAT | O_EXCL, "creating it"));
  writer.data_offset_ = made.bytes.size();
  writer.header_ = std::move(made.header);
  std::uint64_t const data_bytes = writer.header_.tensors.empty() ? 0 : writer.header_.tensors.back().end;
  if (data_bytes > std::numeric_limits<std::uint64_t>::max() - writer.data_offset_) {
    throw FileError(
        fmt::format("{}: {} bytes of data are more than a file can hold", part.string(), data_bytes));
  }
  reserve(writer.file_.get(), writer.data_offset_ + data_bytes, part);
  write_exactly(writer.file_.get(), std::as_bytes(std::span(made.bytes)), 0, part);
  // Network file systems show a file's contents to other hosts once it is synchronised.
  if (::fsync(writer.file_.get()) != 0) throw system_error(part, "synchronising it");
  return writer;
}

TensorWriter TensorWriter::join(std::filesystem::path path) {
  fs::path const part = part_path(path);
  TensorWriter writer(Role::joiner, std::move(path), open_file(part, O_WRONLY, "opening it"));
  TensorReader const created(part);
  writer.header_ = {created.tensors(), created.metadata()};
  writer.data_offset_ = created.data_offset();
  return writer;
}

TensorInfo const& TensorWriter::tensor(std::string_view name) const {
  return find_or_throw(header_.tensors, name, part_.path());
}

void TensorWriter::write(TensorInfo const& tensor, std::span<std::byte const> source) {
  check_length(tensor, tensor.bytes(), source.size());
  write_exactly(file_.get(), source, data_offset_ + tensor.begin, part_.path());
}

void TensorWriter::write_rows(TensorInfo const& tensor, std::size_t axis, std::span<Slice const> rows,
                              std::span<std::byte const> source) {
  std::string const file = part_.path().string();
  check_length(tensor, rows_bytes(tensor, axis, rows, file), source.size());
  for_each_range(view_axis(tensor, axis, file), rows, [&](ByteRange range) {
    std::uint64_t const bytes = range.end - range.begin;
    write_exactly(file_.get(), source.first(bytes), data_offset_ + tensor.begin + range.begin, part_.path());
    source = source.subspan(bytes);
  });
}

void TensorWriter::close() {
  if (::fsync(file_.get()) != 0) throw system_error(part_.path(), "synchronising it");
  // Not repeated when interrupted: Linux has released the descriptor by then.
  if (::close(file_.release()) != 0 && errno != EINTR) throw system_error(part_.path(), "closing it");
  if (role_ == Role::joiner) part_.release();
}

void TensorWriter::commit() {
  if (role_ != Role::creator || file_.get() >= 0) {
    throw std::logic_error("commit is for the rank that created the file, after close");
  }
  if (!part_.in_place()) {
    throw FileError(
        fmt::format("{}: removed or replaced: another rank failed, or another job writes the same file",
                    part_.path().string()));
  }
  check_target(path_);
  if (::rename(part_.path().c_str(), path_.c_str()) != 0) {
    throw system_error(part_.path(), fmt::format("renaming it to {}", path_.string()));
  }
  part_.release();
  sync_directory(path_);
}

}  // namespace plait
