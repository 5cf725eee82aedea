// SPDX-License-Identifier: Apache-2.0
// parallel_for over oneTBB: the only file that knows it.
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "core/parallel.h"

namespace nibble {
namespace {

// One arena of the wanted width, made anew when that changes. TBB prints a warning when it is asked
// for more than the process allows, so the arena never asks.
std::shared_ptr<tbb::task_arena> arena() {
  static std::mutex mutex;
  static std::shared_ptr<tbb::task_arena> current;
  static int width = 0;
  const std::lock_guard lock(mutex);
  const auto allowed =
      tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
  const int threads = std::min(thread_count(), static_cast<int>(allowed));
  if (current == nullptr || width != threads) {
    current = std::make_shared<tbb::task_arena>(threads);
    width = threads;
  }
  return current;
}

}  // namespace

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  if (count <= 1 || thread_count() == 1) {
    for (std::int64_t i = 0; i < count; ++i) {
      body(i);
    }
    return;
  }
  arena()->execute([&] {
    tbb::parallel_for(
        tbb::blocked_range<std::int64_t>(0, count, 1),
        [&](const tbb::blocked_range<std::int64_t>& range) {
          for (std::int64_t i = range.begin(); i < range.end(); ++i) {
            body(i);
          }
        },
        tbb::auto_partitioner());
  });
}

}  // namespace nibble
