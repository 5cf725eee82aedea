// SPDX-License-Identifier: Apache-2.0
// The one seam for parallelism. oneTBB stands behind it (cpu/parallel_tbb.cc); ThreadSanitizer
// builds put a plain pool there (cpu/parallel_threads.cc), since TSan cannot see into libtbb.
#pragma once

#include <cstdint>
#include <functional>

namespace nibble {

// Calls body(i) once for every i in [0, count), on up to thread_count() threads, in any order, and
// returns when all are done. `count` and what body(i) computes must not depend on the number of
// threads: that is what makes results the same for any. The first exception thrown by a body is
// rethrown here; the others are lost. Nested calls are allowed. Thread-safe.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body);
// The same for any callable, without a copy of it: a std::function of a large one would allocate,
// which a step must not.
template <class Body>
void parallel_for(std::int64_t count, const Body& body) {
  const std::function<void(std::int64_t)> by_reference(std::cref(body));
  parallel_for(count, by_reference);
}

// Threads used by parallel_for in this process. 0 restores the default: the process's CPU affinity,
// limited by the cgroup's CPU quota (os::available_cpus). Not thread-safe against parallel_for.
void set_thread_count(int threads);
int thread_count();

}  // namespace nibble
