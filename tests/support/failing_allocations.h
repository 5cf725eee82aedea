// SPDX-License-Identifier: Apache-2.0
// Allocations that are counted, and fail when a test says so. A program that uses this links
// failing_allocations.cc, which replaces operator new for it and for libnibble.
#pragma once

#include <gtest/gtest.h>

#include <atomic>

#include "support/misuse.h"
#include "support/tensor_case.h"

namespace nibble::test {

extern std::atomic<int> allocations_left;  // the one after these fails; -1: none does
extern std::atomic<int> allocations;       // so far

// Calls with the n-th allocation failing, n = 0, 1, ..., until the call succeeds; returns how many
// times it failed.
template <class Call, class Check>
int fail_each_allocation(const Call& call, const Check& unchanged) {
  for (int n = 0; n < 5000; ++n) {
    allocations_left = n;
    const nibble_status status = call();
    const bool used_up = allocations_left < 0;
    allocations_left = -1;
    if (status == NIBBLE_OK) {
      EXPECT_FALSE(used_up) << "a failed allocation was not noticed";
      return n;
    }
    EXPECT_EQ(status, NIBBLE_OUT_OF_MEMORY) << nibble_last_error();
    EXPECT_STREQ(nibble_last_error(), "out of memory");
    unchanged();
    if (::testing::Test::HasFailure()) {
      return n;
    }
  }
  ADD_FAILURE() << "no end";
  return -1;
}

template <class Call>
int allocations_of(const Call& call) {
  const int before = allocations;
  api::check(call());
  return allocations - before;
}

// On one thread: what TBB allocates for itself is its own affair.
class OutOfMemory : public ::testing::Test {
 protected:
  OutOfMemory() {  // what is asked of the machine once
    nibble_isa_name();
    nibble_thread_count();
  }
  ScopedThreads one_thread_{1};
};

inline constexpr std::size_t kCount = 40 * 13;

// A run of two steps of a matrix.
inline CaseRun make_run(const TensorCase& setup) {
  CaseRun run(setup, make_input("normal", kCount, 50));
  run.step(make_input("normal", kCount, 1));
  run.step(make_input("normal", kCount, 2));
  return run;
}

}  // namespace nibble::test
