// SPDX-License-Identifier: Apache-2.0
#include "os/system.h"

#include <hwloc.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "os/cgroup.h"

namespace nibble::os {
namespace {

struct BitmapFree {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapFree>;

// Only processing units are kept: the whole topology costs tens of milliseconds more. Never
// destroyed: threads may ask at exit.
hwloc_topology_t topology() {
  static const hwloc_topology_t loaded = [] {
    hwloc_topology_t fresh = nullptr;
    if (hwloc_topology_init(&fresh) != 0) {
      return static_cast<hwloc_topology_t>(nullptr);
    }
    hwloc_topology_set_all_types_filter(fresh, HWLOC_TYPE_FILTER_KEEP_NONE);
    if (hwloc_topology_load(fresh) != 0) {
      hwloc_topology_destroy(fresh);
      fresh = nullptr;
    }
    return fresh;
  }();
  return loaded;
}

// CPUs that are both allowed on this machine and in the process's affinity mask; 0 if unknown.
int allowed_cpus() {
  const hwloc_topology_t machine = topology();
  const Bitmap bound(hwloc_bitmap_alloc());
  if (machine == nullptr || bound == nullptr) {
    return 0;
  }
  const hwloc_const_cpuset_t allowed = hwloc_topology_get_allowed_cpuset(machine);
  // A synthetic topology (HWLOC_SYNTHETIC) says nothing about where this process may run.
  if (hwloc_topology_is_thissystem(machine) != 0 &&
      hwloc_get_cpubind(machine, bound.get(), HWLOC_CPUBIND_PROCESS) == 0) {
    hwloc_bitmap_and(bound.get(), bound.get(), allowed);
    return std::max(0, hwloc_bitmap_weight(bound.get()));
  }
  return std::max(0, hwloc_bitmap_weight(allowed));
}

// A "Name:   123 kB" line of a file under /proc, in bytes; 0 if absent.
std::uint64_t proc_field(const char* path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ':') {
      return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
    }
  }
  return 0;
}

}  // namespace

int available_cpus() {
  int cpus = std::max(1, allowed_cpus());
  if (const auto quota = cgroup_cpus()) {
    // Half a CPU still needs a thread; 2.5 CPUs are used by three.
    const double whole = std::ceil(std::min(*quota, 1e6));
    cpus = std::min(cpus, std::max(1, static_cast<int>(whole)));
  }
  return cpus;
}

std::uint64_t available_address_space() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  const std::uint64_t total = limit.rlim_cur;
  return total - std::min(total, proc_field("/proc/self/status", "VmSize"));
}

std::uint64_t available_physical_bytes() {
  std::uint64_t free = proc_field("/proc/meminfo", "MemAvailable");
  if (free == 0) {
    return 0;
  }
  if (const auto group = cgroup_free_memory()) {
    free = std::min(free, *group);
  }
  return std::max<std::uint64_t>(free, 1);  // 0 means unknown, and this is known
}

std::uint64_t available_memory_bytes() {
  const std::uint64_t free = available_physical_bytes();
  return free == 0 ? 0 : std::max<std::uint64_t>(std::min(free, available_address_space()), 1);
}

std::uint64_t peak_resident_bytes() { return proc_field("/proc/self/status", "VmHWM"); }

double monotonic_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace nibble::os
