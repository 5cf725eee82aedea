// SPDX-License-Identifier: Apache-2.0
#include "os/system.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>
#include <vector>

#include "os/cgroup.h"
#include "tests/support/paths.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Runs in a child, so that limits do not stay; true if it returns true.
template <class F>
bool in_child(F&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(body() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(System, CpusFollowTheAffinity) {
  const int cpus = os::available_cpus();
  EXPECT_GE(cpus, 1);
  EXPECT_LE(cpus, static_cast<int>(std::thread::hardware_concurrency()));
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer's own thread keeps its affinity";
#endif
  EXPECT_TRUE(in_child([] {
    cpu_set_t set;
    ::sched_getaffinity(0, sizeof set, &set);
    int first = 0;
    while (!CPU_ISSET(first, &set)) {
      ++first;
    }
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ::sched_setaffinity(0, sizeof set, &set);
    return os::available_cpus() == 1;
  }));
}

TEST(System, MemoryFollowsTheAddressSpaceLimit) {
  const std::uint64_t free = os::available_memory_bytes();
  EXPECT_GT(free, 0U);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve terabytes of address space";
#endif
  EXPECT_TRUE(in_child([] {
    const rlimit limit{rlim_t{512} << 20, rlim_t{512} << 20};
    ::setrlimit(RLIMIT_AS, &limit);
    const std::uint64_t now = os::available_memory_bytes();
    return now > 0 && now < (std::uint64_t{512} << 20);
  }));
}

TEST(System, PeakGrowsWithUse) {
  const std::uint64_t before = os::peak_resident_bytes();
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  std::vector<char> block(kBytes, 1);
  EXPECT_GE(os::peak_resident_bytes(), kBytes);
  EXPECT_GE(os::peak_resident_bytes(), before);
  EXPECT_EQ(block[kBytes / 2], 1);
}

TEST(System, ClockAdvances) {
  const double before = os::monotonic_seconds();
  ::usleep(2000);
  const double took = os::monotonic_seconds() - before;
  EXPECT_GE(took, 0.0019);
  EXPECT_LT(took, 10.0);
}

// A tree of files that looks like /proc and /sys/fs/cgroup.
class FakeRoot {
 public:
  void put(const std::string& path, const std::string& content) {
    const fs::path file = directory_.path() / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }
  const fs::path& path() const { return directory_.path(); }

 private:
  test::TemporaryDirectory directory_;
};

TEST(Cgroup, NoneMeansNoLimit) {
  const FakeRoot root;
  EXPECT_EQ(os::cgroup_cpus(root.path()), std::nullopt);
  EXPECT_EQ(os::cgroup_free_memory(root.path()), std::nullopt);
}

TEST(Cgroup, Version2TakesTheTightestAncestor) {
  FakeRoot root;
  root.put("proc/self/cgroup", "0::/a/b\n");
  root.put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  root.put("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  root.put("sys/fs/cgroup/cpu.max", "800000 100000\n");
  root.put("sys/fs/cgroup/a/b/memory.max", "1000000\n");
  root.put("sys/fs/cgroup/a/b/memory.current", "700000\n");
  root.put("sys/fs/cgroup/a/b/memory.stat", "anon 400000\ninactive_file 300000\n");
  root.put("sys/fs/cgroup/a/memory.max", "max\n");
  root.put("sys/fs/cgroup/a/memory.current", "900000\n");
  EXPECT_EQ(os::cgroup_cpus(root.path()), 1.5);
  EXPECT_EQ(os::cgroup_free_memory(root.path()), 600000U);
  root.put("sys/fs/cgroup/a/memory.max", "1000000\n");
  EXPECT_EQ(os::cgroup_free_memory(root.path()), 100000U);
  root.put("sys/fs/cgroup/a/memory.max", "800000\n");  // lowered below what is used
  EXPECT_EQ(os::cgroup_free_memory(root.path()), 0U);
}

TEST(Cgroup, Version1) {
  FakeRoot root;
  // The path is the host's and does not exist here: the mount's root is the container's group.
  root.put("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/\n");
  root.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  root.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  root.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  root.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n");
  root.put("sys/fs/cgroup/memory/memory.stat", "cache 9\ntotal_inactive_file 1000\n");
  EXPECT_EQ(os::cgroup_cpus(root.path()), 0.5);
  EXPECT_EQ(os::cgroup_free_memory(root.path()), 2000U);
  root.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(os::cgroup_cpus(root.path()), std::nullopt);
}

TEST(Cgroup, GarbageIsNoLimit) {
  FakeRoot root;
  root.put("proc/self/cgroup", "no colons\n:\n0::/\n");
  root.put("sys/fs/cgroup/cpu.max", "zero zero\n");
  root.put("sys/fs/cgroup/memory.max", "many\n");
  EXPECT_EQ(os::cgroup_cpus(root.path()), std::nullopt);
  EXPECT_EQ(os::cgroup_free_memory(root.path()), std::nullopt);
}

}  // namespace
}  // namespace nibble
