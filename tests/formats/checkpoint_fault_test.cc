// SPDX-License-Identifier: Apache-2.0
// The Nth operation on the disk fails, or the process dies there, for every N.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "core/status.h"
#include "os/fault.h"
#include "tests/formats/checkpoint_fixture.h"

namespace nibble {
namespace {

using formats::Checkpoint;
namespace fs = std::filesystem;
using CheckpointFaultTest = test::CheckpointFixture;

int operations_left = 0;
int fault_errno = 0;
int countdown(const char* /*operation*/, const fs::path& /*path*/) {
  if (--operations_left != 0) {
    return 0;
  }
  if (fault_errno == 0) {
    ::_exit(42);
  }
  return fault_errno;
}

TEST_F(CheckpointFaultTest, EveryFailingOperationLeavesNothingOrAWhole) {
  for (const int error : {ENOSPC, EIO}) {
    int failures = 0;
    for (int n = 1;; ++n) {
      operations_left = n;
      fault_errno = error;
      os::fault_hook = countdown;
      bool failed = false;
      try {
        test::save_checkpoint(path_);
      } catch (const Error& e) {
        failed = true;
        EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(StatusCode::kIo));
      }
      os::fault_hook = nullptr;
      if (fs::exists(path_)) {
        EXPECT_NO_THROW(Checkpoint{path_}) << "operation " << n;
        fs::remove_all(path_);
      }
      EXPECT_TRUE(fs::is_empty(directory_.path())) << "operation " << n;
      if (!failed) {
        break;
      }
      ++failures;
    }
    EXPECT_GT(failures, 25);
  }
}

TEST_F(CheckpointFaultTest, AKillAtAnyOperationLeavesNothingOrAWhole) {
  int kills = 0;
  for (int n = 1;; ++n) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      operations_left = n;
      fault_errno = 0;
      os::fault_hook = countdown;
      test::save_checkpoint(path_);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (fs::exists(path_)) {
      EXPECT_NO_THROW(Checkpoint{path_}) << "operation " << n;
      fs::remove_all(path_);
    }
    os::remove_stale_staging(directory_.path());
    EXPECT_TRUE(fs::is_empty(directory_.path())) << "operation " << n;
    if (WEXITSTATUS(status) == 0) {
      break;
    }
    ASSERT_EQ(WEXITSTATUS(status), 42);
    ++kills;
  }
  EXPECT_GT(kills, 25);
}

}  // namespace
}  // namespace nibble
