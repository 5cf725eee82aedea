// SPDX-License-Identifier: Apache-2.0
// Worker: the block's barrier with its checks, and what is said when something is wrong.
#include <algorithm>
#include <cstdlib>

#include "cuda_host/sanitizers.h"
#include "cuda_host/text.h"
#include "cuda_host/worker.h"

namespace nibble::cuda_host {

// Called when no thread can run: either all are at the barrier, or some never will be.
bool Worker::release_barrier() {
  if (at_barrier_ != live_) {
    return false;
  }
  const Thread* first = nullptr;
  const Thread* exited = nullptr;
  unsigned count = 0;
  for (unsigned i = 0; i < place_.threads; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == ThreadState::kExited) {
      exited = &thread;
      continue;
    }
    first = first != nullptr ? first : &thread;
    if (!same_site(thread.site, first->site)) {
      fail("barriers at different places: " + describe(*first) + ", but " + describe(thread));
      return true;
    }
    count += thread.predicate != 0 ? 1 : 0;
  }
  if (exited != nullptr) {
    fail("divergent barrier: " + describe(*first) + ", but " + describe(*exited));
    return true;
  }
  barrier_result_ = static_cast<int>(barrier_kind_ == Barrier::kCount ? count
                                     : barrier_kind_ == Barrier::kAnd ? count == live_
                                                                      : count != 0);
  at_barrier_ = 0;
  for (unsigned i = 0; i < place_.threads; ++i) {
    make_ready(threads_[order_ == Order::kReverse ? place_.threads - 1 - i : i]);
  }
  return true;
}

std::string Worker::describe_state(const Thread& thread) const {
  switch (thread.state) {
    case ThreadState::kAtBarrier:
      return "waits in __syncthreads at " + text(thread.site);
    case ThreadState::kInWarp:
      return warps_[thread.linear / kWarpSize].describe_wait(thread.linear % kWarpSize);
    case ThreadState::kExited:
      return "has exited";
    default:
      return "can run";
  }
}

std::string Worker::describe(const Thread& thread) const {
  return text(thread) + " " + describe_state(thread);
}

// One thread for each different way of waiting, up to a readable number.
void Worker::report_deadlock() {
  constexpr unsigned kMostExamples = 4;
  std::string examples;
  std::vector<std::string> shown;
  for (unsigned i = 0; i < place_.threads && shown.size() < kMostExamples; ++i) {
    const std::string state = describe_state(threads_[i]);
    if (std::find(shown.begin(), shown.end(), state) == shown.end()) {
      examples += (shown.empty() ? "" : "; ") + text(threads_[i]) + " " + state;
      shown.push_back(state);
    }
  }
  fail("deadlock: " + examples);
}

void Worker::fail(const std::string& what) {
  if (error_.empty()) {
    const sanitizers::Ignore ignore;  // the host will free it
    error_ = "block " + text(place_.index) + ": " + what;
  }
}

void Worker::fail_here(std::string what, Site site) {
  fail(text(*current) + " at " + text(site) + ": " + what);
  std::string().swap(what);  // this frame is never left: free it here (an assignment would not)
  hand_over(nullptr);
  std::abort();  // an abandoned thread never goes on
}

}  // namespace nibble::cuda_host
