// Tensor files on disk: rows read and written by several ranks, and what happens when the system fails.
#include "tensor_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>

#include "safetensors_bytes.hpp"
#include "scratch.hpp"
#include "system_faults.hpp"

namespace plait {
namespace {

using testing_bytes::with_header;
using testing_faults::faults;
using testing_scratch::Scratch;
using Names = std::vector<std::string>;

class TensorFile : public testing::Test {
 protected:
  void TearDown() override { faults = {}; }
  Scratch scratch_;
};

void write_bytes(std::filesystem::path const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_bytes(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string error_of(std::function<void()> const& action) {
  try {
    action();
  } catch (FileError const& error) {
    return error.what();
  }
  return "no error";
}

/// A U8 tensor "a" of this shape with bytes 0, 1, 2, … 250, 0, …
std::string counting_file(std::vector<Index> const& shape) {
  NewTensor const tensor{"a", FileDType::u8, shape};
  std::string file = make_header(std::span(&tensor, 1), {}, "f").bytes;
  Index const count = std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
  for (Index i = 0; i < count; ++i) file += static_cast<char>(i % 251);
  return file;
}

std::vector<int> read_rows(TensorReader const& reader, std::size_t axis, std::vector<Slice> const& rows) {
  TensorInfo const& tensor = reader.tensor("a");
  std::vector<std::byte> bytes(rows_bytes(tensor, axis, rows, "f"));
  reader.read_rows(tensor, axis, rows, bytes);
  std::vector<int> values;
  for (std::byte const byte : bytes) values.push_back(std::to_integer<int>(byte));
  return values;
}

TEST_F(TensorFile, ReadsRowsAlongEachAxis) {
  write_bytes(scratch_ / "f", counting_file({2, 3, 4}));
  TensorReader const reader(scratch_ / "f");
  EXPECT_EQ(read_rows(reader, 1, {{1, 2}}), (std::vector{4, 5, 6, 7, 16, 17, 18, 19}));
  EXPECT_EQ(read_rows(reader, 1, {{2, 3}, {0, 1}}),
            (std::vector{8, 9, 10, 11, 0, 1, 2, 3, 20, 21, 22, 23, 12, 13, 14, 15}));
  EXPECT_EQ(read_rows(reader, 2, {{1, 3}}), (std::vector{1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22}));
  EXPECT_EQ(read_rows(reader, 0, {{1, 2}}), (std::vector{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(read_rows(reader, 1, {}), std::vector<int>());
  EXPECT_EQ(read_rows(reader, 1, {{3, 3}}), std::vector<int>());
}

TEST_F(TensorFile, RangesThatTouchAreReadAtOnce) {
  write_bytes(scratch_ / "f", counting_file({2, 6, 4}));
  TensorReader const reader(scratch_ / "f");
  auto const transfers = [&](std::vector<Slice> const& rows) {
    faults.transfers = 0;
    (void)read_rows(reader, 1, rows);
    return faults.transfers;
  };
  EXPECT_EQ(transfers({{0, 6}}), 1);                  // the whole tensor
  EXPECT_EQ(transfers({{1, 3}}), 2);                  // one per batch entry
  EXPECT_EQ(transfers({{0, 1}, {1, 2}, {4, 5}}), 4);  // two per batch entry
  EXPECT_EQ(transfers({{0, 1}, {5, 6}}), 3);          // the end of one entry touches the next one's start
  EXPECT_EQ(transfers({}), 0);
}

TEST_F(TensorFile, RefusesRowsThatAreNotThere) {
  write_bytes(scratch_ / "f", counting_file({2, 3, 4}));
  TensorReader const reader(scratch_ / "f");
  auto const read = [&](std::size_t axis, Slice rows) {
    return error_of([&] { (void)read_rows(reader, axis, {rows}); });
  };
  EXPECT_EQ(read(1, {0, 4}), "f: tensor \"a\": rows [0, 4) of axis 1, which has 3");
  EXPECT_EQ(read(1, {-1, 2}), "f: tensor \"a\": rows [-1, 2) of axis 1, which has 3");
  EXPECT_EQ(read(1, {2, 1}), "f: tensor \"a\": rows [2, 1) of axis 1, which has 3");
  EXPECT_EQ(read(3, {0, 1}), "f: tensor \"a\" has 3 axes; axis 3 was asked for");
  std::vector<std::byte> small(3);
  std::array const too_many{Slice{0, 4}};
  EXPECT_EQ(error_of([&] { reader.read_rows(reader.tensor("a"), 1, too_many, small); }),
            (scratch_ / "f").string() + ": tensor \"a\": rows [0, 4) of axis 1, which has 3");
  EXPECT_THROW(reader.read(reader.tensor("a"), small), std::invalid_argument);
  EXPECT_EQ(error_of([&] { (void)reader.tensor("q"); }),
            (scratch_ / "f").string() + ": no tensor \"q\"; the file holds \"a\"");
}

TEST_F(TensorFile, RowsBelowAByteAreRefused) {
  write_bytes(scratch_ / "f", with_header(R"({"a":{"dtype":"F4","shape":[4,3],"data_offsets":[0,6]}})", 6));
  TensorReader const reader(scratch_ / "f");
  EXPECT_EQ(error_of([&] {
              (void)read_rows(reader, 0, {{0, 1}});
            }),
            "f: tensor \"a\": a row along axis 0 is 12 bits of F4, not whole bytes");
  EXPECT_EQ(reader.read(reader.tensor("a")).size(), 6u);
}

TEST_F(TensorFile, ReadsMasksWholeAndEmptyTensorsAsNothing) {
  std::string const header = R"({"mask":{"dtype":"BOOL","shape":[2,2],"data_offsets":[0,4]},)"
                             R"("none":{"dtype":"F32","shape":[1099511627776,1,0],"data_offsets":[4,4]}})";
  write_bytes(scratch_ / "f", with_header(header, 4));
  TensorReader const reader(scratch_ / "f");
  EXPECT_EQ(reader.read(reader.tensor("mask")), (std::vector(4, std::byte{0x5a})));
  EXPECT_TRUE(reader.read(reader.tensor("none")).empty());
  // 2^40 entries of rows without bytes, or of no rows: returns at once.
  for (Slice const rows : {Slice{0, 1}, Slice{0, 0}}) {
    reader.read_rows(reader.tensor("none"), 1, std::span(&rows, 1), {});
  }
  EXPECT_TRUE(reader.contains("mask"));
  EXPECT_FALSE(reader.contains("q"));
}

TEST_F(TensorFile, OffsetsPass32Bits) {
  constexpr Index rows = Index{6} << 30;  // 6 GiB, sparse
  NewTensor const tensor{"a", FileDType::u8, {1, rows, 1}};
  std::string const header = make_header(std::span(&tensor, 1), {}, "f").bytes;
  write_bytes(scratch_ / "f", header);
  std::filesystem::resize_file(scratch_ / "f", header.size() + static_cast<std::uintmax_t>(rows));
  {
    std::fstream file(scratch_ / "f", std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(header.size()) + (Index{5} << 30) + 7);
    file.put(42);
  }
  TensorReader const reader(scratch_ / "f");
  Index const at = (Index{5} << 30) + 6;
  EXPECT_EQ(read_rows(reader, 1, {{at, at + 3}}), (std::vector{0, 42, 0}));
}

TEST_F(TensorFile, InterruptedAndShortTransfersGoOn) {
  NewTensor const tensor{"a", FileDType::u8, {1, 200, 5}};
  std::vector<std::byte> data(1000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i % 251);
  faults = {.interruptions = 3, .longest_transfer = 7};
  auto writer = TensorWriter::create(scratch_ / "f", std::span(&tensor, 1));
  std::array const all{Slice{0, 200}};
  faults.interruptions = 3;
  writer.write_rows(writer.tensor("a"), 1, all, data);
  writer.close();
  writer.commit();
  EXPECT_EQ(faults.interruptions, 0);
  faults.interruptions = 5;
  TensorReader const reader(scratch_ / "f");
  EXPECT_EQ(reader.read(reader.tensor("a")), data);
  EXPECT_EQ(faults.interruptions, 0);
  EXPECT_GT(faults.transfers, 2 * 1000 / 7);
  EXPECT_EQ(read_bytes(scratch_ / "f"), counting_file({1, 200, 5}));
}

TEST_F(TensorFile, ReadErrorsNamePlaceAndReason) {
  write_bytes(scratch_ / "f", counting_file({10}));
  TensorReader const reader(scratch_ / "f");
  faults.read_error = EIO;
  EXPECT_EQ(error_of([&] { (void)reader.read(reader.tensor("a")); }),
            (scratch_ / "f").string() + ": reading 10 bytes at byte " + std::to_string(reader.data_offset()) +
                " failed: Input/output error");
}

TEST_F(TensorFile, TruncatedAfterOpening) {
  write_bytes(scratch_ / "f", counting_file({1, 1000, 1}));
  TensorReader const reader(scratch_ / "f");
  std::uint64_t const end = reader.data_offset() + 500;
  std::filesystem::resize_file(scratch_ / "f", end);
  EXPECT_EQ(read_rows(reader, 1, {{0, 500}}).size(), 500u);  // what is still there can be read
  EXPECT_EQ(error_of([&] { (void)reader.read(reader.tensor("a")); }),
            (scratch_ / "f").string() + ": ends at byte " + std::to_string(end) +
                ", where 500 more were to be read: truncated since it was opened");
}

TEST_F(TensorFile, OpeningWhatIsNoTensorFile) {
  auto const open = [](std::filesystem::path const& path) {
    return error_of([&] { TensorReader const reader(path); });
  };
  EXPECT_EQ(open(scratch_ / "none"),
            (scratch_ / "none").string() + ": opening it failed: No such file or directory");
  EXPECT_EQ(open(scratch_.path()), scratch_.path().string() + ": not a regular file");
  EXPECT_EQ(open("/dev/null"), "/dev/null: not a regular file");
  ASSERT_EQ(mkfifo((scratch_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(open(scratch_ / "pipe"), (scratch_ / "pipe").string() + ": not a regular file");
  write_bytes(scratch_ / "short", "1234");
  EXPECT_EQ(open(scratch_ / "short"),
            (scratch_ / "short").string() + ": 4 bytes long; a safetensors file has at least 8");
}

TEST_F(TensorFile, ManyWritersOneFile) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 40; ++round) {
    Index const batch = 1 + static_cast<Index>(random() % 3);
    Index const rows = static_cast<Index>(random() % 40);
    Index const heads = 1 + static_cast<Index>(random() % 3);
    Index const dim = 1 + static_cast<Index>(random() % 5);
    std::size_t const ranks = 1 + random() % 4;
    // Each row belongs to a random rank; a rank's slices are its runs of rows.
    std::vector<std::vector<Slice>> owned(ranks);
    for (Index row = 0; row < rows; ++row) owned[random() % ranks].push_back({row, row + 1});

    std::vector<NewTensor> const tensors{{"out", FileDType::bf16, {batch, rows, heads, dim}},
                                         {"lse", FileDType::f32, {batch, heads, rows}}};
    auto const out_value = [&](Index b, Index row, Index h, Index i) {
      return static_cast<std::uint16_t>(((b * rows + row) * heads + h) * dim + i);
    };
    auto const lse_value = [&](Index b, Index h, Index row) {
      return static_cast<float>((b * heads + h) * rows + row) + 0.5f;
    };
    std::vector<TensorWriter> writers;
    writers.push_back(TensorWriter::create(scratch_ / "f", tensors, {{"by", "test"}}));
    while (writers.size() < ranks) writers.push_back(TensorWriter::join(scratch_ / "f"));
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      std::vector<std::uint16_t> out;
      std::vector<float> lse;
      for (Index b = 0; b < batch; ++b) {
        for (Slice const slice : owned[rank]) {
          for (Index h = 0; h < heads; ++h) {
            for (Index i = 0; i < dim; ++i) out.push_back(out_value(b, slice.begin, h, i));
          }
        }
        for (Index h = 0; h < heads; ++h) {
          for (Slice const slice : owned[rank]) lse.push_back(lse_value(b, h, slice.begin));
        }
      }
      TensorWriter& writer = writers[rank];
      writer.write_rows(writer.tensor("out"), 1, owned[rank], std::as_bytes(std::span(out)));
      writer.write_rows(writer.tensor("lse"), 2, owned[rank], std::as_bytes(std::span(lse)));
    }
    EXPECT_EQ(scratch_.names(), (round == 0 ? Names{"f.part"} : Names{"f", "f.part"}));
    for (TensorWriter& writer : writers) writer.close();
    writers.front().commit();
    writers.clear();
    EXPECT_EQ(scratch_.names(), Names{"f"});

    TensorReader const reader(scratch_ / "f");
    EXPECT_EQ(reader.metadata(), (Metadata{{"by", "test"}}));
    auto const out = reader.read(reader.tensor("out"));
    auto const lse = reader.read(reader.tensor("lse"));
    std::size_t next = 0;
    for (Index b = 0; b < batch; ++b) {
      for (Index row = 0; row < rows; ++row) {
        for (Index h = 0; h < heads; ++h) {
          for (Index i = 0; i < dim; ++i, next += 2) {
            std::uint16_t value = 0;
            std::memcpy(&value, out.data() + next, 2);
            ASSERT_EQ(value, out_value(b, row, h, i)) << "round " << round;
          }
          float value = 0;
          std::memcpy(&value, lse.data() + 4 * ((b * heads + h) * rows + row), 4);
          ASSERT_EQ(value, lse_value(b, h, row)) << "round " << round;
        }
      }
    }
  }
}

NewTensor const kilobytes{"a", FileDType::u8, {1, 4096, 16}};
std::array const all_rows{Slice{0, 4096}};

TEST_F(TensorFile, AWriterThatIsNotDoneLeavesNothing) {
  { auto const creator = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1)); }
  EXPECT_EQ(scratch_.names(), Names{});
  {
    auto creator = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
    { auto const joiner = TensorWriter::join(scratch_ / "f"); }  // fails before its close
    EXPECT_EQ(scratch_.names(), Names{});
    creator.close();
    EXPECT_EQ(error_of([&] { creator.commit(); }),
              (scratch_ / "f.part").string() +
                  ": removed or replaced: another rank failed, or another job writes the same file");
  }
  EXPECT_EQ(scratch_.names(), Names{});
}

TEST_F(TensorFile, AJoinerThatClosedMayGoBeforeTheCommit) {
  auto creator = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
  {
    auto joiner = TensorWriter::join(scratch_ / "f");
    joiner.close();
  }
  creator.close();
  creator.commit();
  EXPECT_EQ(scratch_.names(), Names{"f"});
}

TEST_F(TensorFile, AnotherJobsPartIsLeftAlone) {
  auto first = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
  {
    auto second = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
    first.close();
    EXPECT_THROW(first.commit(), FileError);
    { TensorWriter const gone = std::move(first); }
    EXPECT_EQ(scratch_.names(), Names{"f.part"});
    second.close();
    second.commit();
  }
  EXPECT_EQ(scratch_.names(), Names{"f"});
}

TEST_F(TensorFile, CommitIsForTheCreatorAfterClose) {
  auto creator = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
  EXPECT_THROW(creator.commit(), std::logic_error);
  auto joiner = TensorWriter::join(scratch_ / "f");
  joiner.close();
  EXPECT_THROW(joiner.commit(), std::logic_error);
}

TEST_F(TensorFile, AnOldPartIsReplacedAndAnOldFileStaysUntilCommit) {
  write_bytes(scratch_ / "f", "old");
  write_bytes(scratch_ / "f.part", "left by a job that was killed");
  auto writer = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
  writer.close();
  EXPECT_EQ(read_bytes(scratch_ / "f"), "old");
  writer.commit();
  EXPECT_EQ(TensorReader(scratch_ / "f").tensor("a").bytes(), 65536u);
}

TEST_F(TensorFile, OutputsThatCannotBe) {
  auto const create = [](std::filesystem::path const& path) {
    return error_of([&] { (void)TensorWriter::create(path, std::span(&kilobytes, 1)); });
  };
  EXPECT_EQ(create("/dev/null"), "/dev/null: exists and is not a regular file; an output must be one");
  EXPECT_EQ(create(scratch_.path()),
            scratch_.path().string() + ": exists and is not a regular file; an output must be one");
  EXPECT_EQ(create(scratch_ / "none/f"),
            (scratch_ / "none/f.part").string() + ": creating it failed: No such file or directory");
  EXPECT_EQ(error_of([&] { (void)TensorWriter::join(scratch_ / "f"); }),
            (scratch_ / "f.part").string() + ": opening it failed: No such file or directory");
  NewTensor const huge{"a", FileDType::f64, {Index{1} << 57, 1}};
  EXPECT_NE(error_of([&] { (void)TensorWriter::create(scratch_ / "f", std::span(&huge, 1)); }), "no error");
  EXPECT_EQ(scratch_.names(), Names{});
}

TEST_F(TensorFile, FailuresOfTheDiskLeaveNothing) {
  std::vector<std::byte> const data(65536);
  using testing_faults::SystemFaults;
  auto const error_with = [&](SystemFaults creating, SystemFaults writing, SystemFaults closing) {
    return error_of([&] {
      faults = creating;
      auto writer = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
      faults = writing;
      writer.write_rows(writer.tensor("a"), 1, all_rows, data);
      faults = closing;
      writer.close();
      writer.commit();
    });
  };
  std::string const part = (scratch_ / "f.part").string();
  std::string const reserving = error_with({.reserve_error = ENOSPC}, {}, {});
  EXPECT_TRUE(reserving.starts_with(part + ": reserving 65")) << reserving;
  EXPECT_TRUE(reserving.ends_with(" bytes failed: No space left on device")) << reserving;
  EXPECT_EQ(scratch_.names(), Names{});
  std::string const writing = error_with({}, {.write_error = ENOSPC}, {});
  EXPECT_TRUE(writing.starts_with(part + ": writing 65536 bytes at byte ")) << writing;
  EXPECT_TRUE(writing.ends_with(" failed: No space left on device")) << writing;
  EXPECT_EQ(scratch_.names(), Names{});
  EXPECT_EQ(error_with({}, {}, {.sync_error = EIO}), part + ": synchronising it failed: Input/output error");
  EXPECT_EQ(scratch_.names(), Names{});
  // A file system that can't reserve works all the same.
  EXPECT_EQ(error_with({.reserve_error = EOPNOTSUPP}, {}, {}), "no error");
  EXPECT_EQ(std::filesystem::file_size(scratch_ / "f"), TensorReader(scratch_ / "f").data_offset() + 65536);
}

/// Runs the action in a child process, whose limits and mounts end with it; 0 = it returned normally.
int exit_code_of_child(std::function<int()> const& action) {
  pid_t const child = fork();
  if (child == 0) {
    int code = 99;
    try {
      code = action();
    } catch (std::exception const& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(TensorFile, AFileSizeLimitIsAFileError) {
  int const code = exit_code_of_child([&] {
    signal(SIGXFSZ, SIG_IGN);
    rlimit const limit{16384, 16384};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string const error =
        error_of([&] { (void)TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1)); });
    return error.ends_with(" failed: File too large") ? 0 : 1;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(scratch_.names(), Names{});
}

TEST_F(TensorFile, AFullDiskIsAFileError) {
  constexpr int no_mount = 77;
  int const code = exit_code_of_child([&] {
    if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", scratch_.path().c_str(), "tmpfs", 0, "size=32k") != 0) {
      return no_mount;
    }
    std::string const error =
        error_of([&] { (void)TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1)); });
    if (!error.ends_with(" failed: No space left on device")) return 1;
    if (!scratch_.names().empty()) return 2;
    // A file system that can't reserve finds the disk full while writing.
    faults.reserve_error = EOPNOTSUPP;
    std::vector<std::byte> const data(65536, std::byte{1});
    std::string const late = error_of([&] {
      auto writer = TensorWriter::create(scratch_ / "f", std::span(&kilobytes, 1));
      writer.write_rows(writer.tensor("a"), 1, all_rows, data);
    });
    if (late.find(": writing ") == late.npos || !late.ends_with("No space left on device")) return 3;
    return scratch_.names().empty() ? 0 : 4;
  });
  if (code == no_mount) GTEST_SKIP() << "a small file system can't be mounted here";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace plait
