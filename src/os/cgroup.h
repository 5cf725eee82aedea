// SPDX-License-Identifier: Apache-2.0
// Limits that a container puts on this process: cgroup v2 and v1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace nibble::os {

// `root` is "/" but in tests. A limit of an outer group holds for the inner ones too, so each takes
// the tightest on the way up. nullopt: no limit, or no cgroups.
std::optional<double> cgroup_cpus(const std::filesystem::path& root = "/");
// Limit minus usage; page cache that the kernel can drop does not count as usage.
std::optional<std::uint64_t> cgroup_free_memory(const std::filesystem::path& root = "/");

}  // namespace nibble::os
