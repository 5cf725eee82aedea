// SPDX-License-Identifier: Apache-2.0
// What the machine has and what this process uses. Nothing here throws: unknown is 0.
#pragma once

#include <cstdint>

namespace nibble::os {

// CPUs this process may use: its affinity mask, limited by the cgroup's CPU quota; at least 1.
int available_cpus();

// Bytes this process could still take: MemAvailable, limited by the cgroup's memory limit and
// RLIMIT_AS. 0 if unknown.
std::uint64_t available_memory_bytes();
// The two sides of it. RLIMIT_AS counts whatever is mapped, used or not: a file that is mapped
// already is taken there, and is cache that can be dropped for the other. The greatest number if
// there is no such limit.
std::uint64_t available_physical_bytes();
std::uint64_t available_address_space();

// Highest resident set of this process so far (VmHWM), in bytes.
std::uint64_t peak_resident_bytes();

// Monotonic clock, in seconds.
double monotonic_seconds();

}  // namespace nibble::os
