// SPDX-License-Identifier: Apache-2.0
// What tells things in use from things that a killed process left: names and locks.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "core/status.h"
#include "os/file.h"
#include "support/expect_error.h"
#include "support/paths.h"

namespace nibble {
namespace {

using test::expect_error;
constexpr StatusCode kIo = StatusCode::kIo;
using Names = std::vector<std::string>;

Names names_in(const std::filesystem::path& directory) {
  Names names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Staging, StaleIsRemovedAndLiveIsNot) {
  const test::TemporaryDirectory directory;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto* staged = new os::StagedDirectory(directory.path() / "dead");
    auto* writer = new os::FileWriter(directory.path() / "dead-file");
    os::write_file(staged->staging() / "a", "1");
    writer->write("x");
    ::_exit(0);  // as a kill: no destructors
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(names_in(directory.path()).size(), 2U);
  // Names that only look like ours: another program's, which nobody holds locked.
  Names expected{".a.tmp-", ".a.tmp-1",     ".a.tmp-1-", ".a.tmp-1-x", ".a.tmp-old-2",
                 ".hidden", ".notes.tmp-x", ".tmp-1-2",  "file"};
  for (const std::string& name : expected) {
    os::write_file(directory.path() / name, "mine");
  }
  const os::StagedDirectory live(directory.path() / "live");
  expected.push_back(live.staging().filename().string());
  std::sort(expected.begin(), expected.end());
  os::remove_stale_staging(directory.path());
  EXPECT_EQ(names_in(directory.path()), expected);
  expect_error(kIo, {"absent"}, [&] { os::remove_stale_staging(directory.path() / "absent"); });
}

TEST(Staging, LockExcludesUntilItsEnd) {
  const test::TemporaryDirectory directory;
  {
    const os::DirectoryLock lock(directory.path());
    expect_error(kIo, {directory.path().string(), "another run is writing here"},
                 [&] { const os::DirectoryLock second(directory.path()); });
  }
  const os::DirectoryLock again(directory.path());
  expect_error(kIo, {"absent"}, [&] { const os::DirectoryLock none(directory.path() / "absent"); });
}

}  // namespace
}  // namespace nibble
