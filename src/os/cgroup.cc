// SPDX-License-Identifier: Apache-2.0
#include "os/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::os {
namespace {

using Path = std::filesystem::path;

// The directories of this process's group and its ancestors, for one controller.
struct Groups {
  bool v2 = false;
  std::vector<Path> directories;
};

void add_with_ancestors(const Path& mount, Path group, std::vector<Path>& out) {
  group = group.relative_path();
  // Inside a container the path may be the host's and not exist: the mount's root is our group.
  while (!group.empty()) {
    out.push_back(mount / group);
    group = group.parent_path();
  }
  out.push_back(mount);
}

bool lists(std::string_view controllers, std::string_view controller) {
  while (!controllers.empty()) {
    const std::size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == controller) {
      return true;
    }
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

// Lines of /proc/self/cgroup are ID:CONTROLLERS:PATH; v2 has an empty list.
Groups groups_of(const Path& root, std::string_view controller) {
  Groups v1;
  Groups v2{true, {}};
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      add_with_ancestors(root / "sys/fs/cgroup", path, v2.directories);
    } else if (lists(controllers, controller)) {
      add_with_ancestors(root / "sys/fs/cgroup" / controllers, path, v1.directories);
      add_with_ancestors(root / "sys/fs/cgroup" / controller, path, v1.directories);
    }
  }
  return v1.directories.empty() ? v2 : v1;
}

template <class T>
std::optional<T> read_number(const Path& path) {
  std::ifstream file(path);
  T value;
  return file >> value ? std::optional<T>(value) : std::nullopt;
}

// The number after `key` in a file of "key number" lines.
std::uint64_t read_field(const Path& path, std::string_view key) {
  std::ifstream file(path);
  std::string name;
  std::uint64_t value = 0;
  while (file >> name >> value) {
    if (name == key) {
      return value;
    }
  }
  return 0;
}

template <class T>
void tighten(std::optional<T>& limit, T value) {
  limit = limit ? std::min(*limit, value) : value;
}

}  // namespace

std::optional<double> cgroup_cpus(const Path& root) {
  std::optional<double> limit;
  const Groups groups = groups_of(root, "cpu");
  for (const Path& directory : groups.directories) {
    double quota = 0;
    double period = 0;
    if (groups.v2) {
      std::ifstream file(directory / "cpu.max");
      if (!(file >> quota >> period)) {  // "max 100000": no limit
        continue;
      }
    } else {
      quota = read_number<double>(directory / "cpu.cfs_quota_us").value_or(-1);
      period = read_number<double>(directory / "cpu.cfs_period_us").value_or(0);
    }
    if (quota > 0 && period > 0) {
      tighten(limit, quota / period);
    }
  }
  return limit;
}

std::optional<std::uint64_t> cgroup_free_memory(const Path& root) {
  std::optional<std::uint64_t> free;
  const Groups groups = groups_of(root, "memory");
  for (const Path& directory : groups.directories) {
    const char* const limit_name = groups.v2 ? "memory.max" : "memory.limit_in_bytes";
    const char* const usage_name = groups.v2 ? "memory.current" : "memory.usage_in_bytes";
    const char* const cache_name = groups.v2 ? "inactive_file" : "total_inactive_file";
    const auto limit = read_number<std::uint64_t>(directory / limit_name);
    const auto usage = read_number<std::uint64_t>(directory / usage_name);
    if (!limit || !usage) {
      continue;
    }
    const std::uint64_t cache = read_field(directory / "memory.stat", cache_name);
    const std::uint64_t held = *usage - std::min(*usage, cache);
    tighten(free, *limit - std::min(*limit, held));
  }
  return free;
}

}  // namespace nibble::os
