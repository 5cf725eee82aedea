// SPDX-License-Identifier: Apache-2.0
// How many threads parallel_for may use, whatever stands behind it.
#include <atomic>

#include "core/parallel.h"
#include "core/status.h"
#include "os/system.h"

namespace nibble {
namespace {

std::atomic<int> wanted_threads{0};  // 0: the default

}  // namespace

void set_thread_count(int threads) {
  if (threads < 0) {
    fail(StatusCode::kInvalidArgument, "thread count {}: 0 (the default) or more expected",
         threads);
  }
  wanted_threads = threads;
}

int thread_count() {
  static const int available = os::available_cpus();
  const int wanted = wanted_threads;
  return wanted > 0 ? wanted : available;
}

}  // namespace nibble
