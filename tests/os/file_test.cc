// SPDX-License-Identifier: Apache-2.0
#include "os/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>
#include <vector>

#include "os/fault.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace nibble {
namespace {

using test::expect_error;
namespace fs = std::filesystem;
constexpr StatusCode kIo = StatusCode::kIo;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}
using Names = std::vector<std::string>;

class FileTest : public testing::Test {
 protected:
  ~FileTest() override { os::fault_hook = nullptr; }
  test::TemporaryDirectory directory_;
  fs::path path_ = directory_.path() / "file";
};

TEST_F(FileTest, WritesAndReads) {
  const std::string content("one\0two\n", 8);
  os::write_file(path_, content);
  EXPECT_EQ(os::read_file(path_, 8), content);
  const os::MappedFile map(path_);
  EXPECT_EQ(map.bytes().size(), 8U);
  EXPECT_EQ(map.bytes()[4], std::byte{'t'});
  EXPECT_EQ(map.name(), path_.string());
  os::write_file(path_, "");
  EXPECT_EQ(os::read_file(path_, 8), "");
  EXPECT_EQ(map.bytes()[4], std::byte{'t'});  // the old content lives as long as its map
  EXPECT_TRUE(os::MappedFile(path_).bytes().empty());
  EXPECT_EQ(names_in(directory_.path()), Names{"file"});
}

TEST_F(FileTest, MapsMove) {
  os::write_file(path_, "abc");
  os::MappedFile a(path_);
  os::MappedFile b(std::move(a));
  EXPECT_EQ(b.bytes().size(), 3U);
  a = std::move(b);
  EXPECT_EQ(a.bytes()[2], std::byte{'c'});
}

TEST_F(FileTest, RefusesWhatIsNotARegularFile) {
  const fs::path pipe = directory_.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const fs::path& bad : {directory_.path(), pipe, fs::path("/dev/zero")}) {
    expect_error(kIo, {bad.string(), "regular"}, [&] { os::MappedFile{bad}; });
    expect_error(kIo, {bad.string(), "regular"}, [&] { os::read_file(bad, 100); });
  }
  expect_error(kIo, {"absent", "No such file"},
               [&] { os::MappedFile{directory_.path() / "absent"}; });
  expect_error(kIo, {"absent", "No such file"},
               [&] { os::read_file(directory_.path() / "absent", 1); });
}

TEST_F(FileTest, ReadHasALimit) {
  os::write_file(path_, "12345");
  EXPECT_EQ(os::read_file(path_, 5), "12345");
  expect_error(kIo, {path_.string(), "5 bytes", "4"}, [&] { os::read_file(path_, 4); });
}

TEST_F(FileTest, WriterKeepsOldContentUntilCommit) {
  os::write_file(path_, "old");
  {
    os::FileWriter writer(path_);
    writer.write("new");
    EXPECT_EQ(writer.position(), 3U);
    EXPECT_EQ(os::read_file(path_, 10), "old");
  }
  EXPECT_EQ(os::read_file(path_, 10), "old");
  os::FileWriter writer(path_);
  writer.write("new");
  writer.commit();
  EXPECT_EQ(os::read_file(path_, 10), "new");
  expect_error(StatusCode::kWrongOrder, {"file"}, [&] { writer.commit(); });
  expect_error(StatusCode::kWrongOrder, {"file"}, [&] { writer.write("x"); });
  EXPECT_EQ(names_in(directory_.path()), Names{"file"});
}

TEST_F(FileTest, WriteNamesThePathOnErrors) {
  expect_error(kIo, {"absent/file", "No such file"},
               [&] { os::write_file(directory_.path() / "absent/file", "x"); });
  fs::create_directory(path_);
  expect_error(kIo, {path_.string()}, [&] { os::write_file(path_, "x"); });
  EXPECT_EQ(names_in(directory_.path()), Names{"file"});
  expect_error(kIo, {"name"}, [&] { os::write_file("", "x"); });
}

TEST_F(FileTest, ReadOnlyDirectory) {
  if (::geteuid() == 0) {
    // Root may write anywhere: /proc refuses even root.
    expect_error(kIo, {"/proc/nibble-test"}, [] { os::write_file("/proc/nibble-test", "x"); });
    expect_error(kIo, {"/proc/nibble-test"}, [] { os::StagedDirectory{"/proc/nibble-test"}; });
    return;
  }
  fs::permissions(directory_.path(), fs::perms::owner_read | fs::perms::owner_exec);
  expect_error(kIo, {path_.string(), "denied"}, [&] { os::write_file(path_, "x"); });
  expect_error(kIo, {path_.string(), "denied"}, [&] { os::StagedDirectory{path_}; });
  fs::permissions(directory_.path(), fs::perms::owner_all);
}

// The order that survives a power cut: all bytes, fsync, rename, fsync of the directory.
std::vector<std::string> operations;
int record(const char* operation, const fs::path& path) {
  operations.push_back(std::string(operation) + " " + path.filename().string());
  return 0;
}

TEST_F(FileTest, ProtocolOrder) {
  operations.clear();
  os::fault_hook = record;
  os::write_file(path_, "x");
  EXPECT_EQ(operations, (Names{"open file", "write file", "fsync file", "rename file",
                               "fsync_directory " + directory_.path().filename().string()}));
  operations.clear();
  os::StagedDirectory staged(directory_.path() / "dir");
  std::ofstream(staged.staging() / "unsynced") << "x";  // not by our writer: commit syncs it
  staged.commit();
  os::fault_hook = nullptr;
  ASSERT_EQ(operations.size(), 5U);
  EXPECT_EQ(operations[0], "mkdir dir");
  EXPECT_EQ(operations[1], "fsync unsynced");
  EXPECT_EQ(operations[2].rfind("fsync_directory .dir.tmp-", 0), 0U);
  EXPECT_EQ(operations[3], "rename dir");
  EXPECT_EQ(operations[4], "fsync_directory " + directory_.path().filename().string());
}

int fail_at = 0;
int calls = 0;
int fault = 0;
int fail_nth(const char* /*operation*/, const fs::path& /*path*/) {
  return ++calls == fail_at ? fault : 0;
}

TEST_F(FileTest, EachFailingOperationLeavesOldOrNew) {
  for (const int error : {ENOSPC, EIO}) {
    for (fail_at = 1; fail_at <= 5; ++fail_at) {
      os::write_file(path_, "old");
      calls = 0;
      fault = error;
      os::fault_hook = fail_nth;
      expect_error(kIo, {directory_.path().string()}, [&] { os::write_file(path_, "new"); });
      EXPECT_EQ(calls, fail_at) << "an operation was tried after the failure";
      os::fault_hook = nullptr;
      EXPECT_EQ(os::read_file(path_, 10), fail_at < 5 ? "old" : "new");
      EXPECT_EQ(names_in(directory_.path()), Names{"file"});
    }
  }
}

TEST_F(FileTest, FileSizeLimit) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{4096, 4096};
    ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      os::write_file(path_, std::string(10000, 'x'));
    } catch (const Error& error) {
      ::_exit(error.code() == kIo && names_in(directory_.path()).empty() ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(FileTest, FullDisk) {
  const fs::path disk = directory_.path() / "disk";
  fs::create_directory(disk);
  if (::mount("none", disk.c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "cannot mount a small tmpfs (needs root)";
  }
  const std::unique_ptr<const char, void (*)(const char*)> unmount(
      disk.c_str(), [](const char* where) { EXPECT_EQ(::umount(where), 0); });
  EXPECT_LE(os::free_disk_bytes(disk), 65536U);
  os::write_file(disk / "f", "old");
  expect_error(kIo, {"f", "No space"},
               [&] { os::write_file(disk / "f", std::string(100'000, 'x')); });
  EXPECT_EQ(os::read_file(disk / "f", 10), "old");
  EXPECT_EQ(names_in(disk), Names{"f"});
  // A line that does not fit whole is taken back.
  os::append_line(disk / "log", "first");
  expect_error(kIo, {"log", "No space"},
               [&] { os::append_line(disk / "log", std::string(100'000, 'y')); });
  EXPECT_EQ(os::read_file(disk / "log", 100), "first\n");
  os::append_line(disk / "log", "second");
  EXPECT_EQ(os::read_file(disk / "log", 100), "first\nsecond\n");
}

TEST_F(FileTest, AppendLine) {
  os::append_line(path_, "a");
  os::append_line(path_, "b\n");
  os::append_line(path_, "");
  EXPECT_EQ(os::read_file(path_, 100), "a\nb\n\n");
  expect_error(kIo, {"absent"}, [&] { os::append_line(directory_.path() / "absent/log", "x"); });
}

TEST_F(FileTest, StagedDirectoryAppearsWhole) {
  const fs::path target = directory_.path() / "dir";
  {
    os::StagedDirectory staged(target);
    os::write_file(staged.staging() / "a", "1");
    EXPECT_FALSE(fs::exists(target));
  }
  EXPECT_TRUE(names_in(directory_.path()).empty());
  os::StagedDirectory staged(target / "");  // with a slash at the end
  fs::create_directory(staged.staging() / "sub");
  os::write_file(staged.staging() / "sub/a", "1");
  staged.commit();
  EXPECT_EQ(os::read_file(target / "sub/a", 1), "1");
  expect_error(StatusCode::kWrongOrder, {"dir"}, [&] { staged.commit(); });
  expect_error(kIo, {"dir", "exists"}, [&] { os::StagedDirectory{target}; });
}

TEST_F(FileTest, StagedDirectoryReplacesNothing) {
  const fs::path target = directory_.path() / "dir";
  {
    os::StagedDirectory staged(target);
    fs::create_directory(target);  // another process was quicker
    expect_error(kIo, {"dir", "exists"}, [&] { staged.commit(); });
  }
  EXPECT_EQ(names_in(directory_.path()), Names{"dir"});
  EXPECT_TRUE(fs::is_empty(target));
}

TEST_F(FileTest, FreeDiskBytes) {
  EXPECT_GT(os::free_disk_bytes(directory_.path()), 0U);
  expect_error(kIo, {"absent"}, [&] { os::free_disk_bytes(directory_.path() / "absent"); });
}

}  // namespace
}  // namespace nibble
