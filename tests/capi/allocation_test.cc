// SPDX-License-Identifier: Apache-2.0
// Every n-th allocation fails in turn: the call says OUT_OF_MEMORY and leaves things as they were.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "support/capi.h"

// The replaced operators below belong together, which g++ does not see once one is inlined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {

std::atomic<int> allocations_left{-1};  // -1: no limit

void* allocate(std::size_t size, std::size_t alignment) {
  if (allocations_left >= 0 && allocations_left-- == 0) {
    allocations_left = -1;
    throw std::bad_alloc();
  }
  void* p = nullptr;
  if (posix_memalign(&p, alignment, size) != 0) {
    throw std::bad_alloc();
  }
  return p;
}

}  // namespace

// Exported, so that libnibble's allocations come here too.
#define EXPORTED __attribute__((visibility("default")))
EXPORTED void* operator new(std::size_t n) { return allocate(n, 16); }
EXPORTED void* operator new(std::size_t n, std::align_val_t a) {
  return allocate(n, static_cast<std::size_t>(a));
}
EXPORTED void operator delete(void* p) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::size_t) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace nibble::test {
namespace {

// Calls with the n-th allocation failing, n = 0, 1, ..., until the call succeeds; returns how many
// times it failed.
template <class Call, class Check>
int fail_each_allocation(const Call& call, const Check& unchanged) {
  for (int n = 0; n < 1000; ++n) {
    allocations_left = n;
    const nibble_status status = call();
    allocations_left = -1;
    if (status == NIBBLE_OK) {
      return n;
    }
    EXPECT_EQ(status, NIBBLE_OUT_OF_MEMORY) << nibble_last_error();
    unchanged();
  }
  return -1;
}

TEST(OutOfMemory, CreateAddAndStepLeaveThingsAsTheyWere) {
  nibble_isa_name();
  const nibble_optimizer_desc desc = adamw_desc("int8");
  nibble_optimizer* opt = nullptr;
  EXPECT_GT(fail_each_allocation([&] { return nibble_optimizer_create(&opt, &desc); },
                                 [&] { EXPECT_EQ(opt, nullptr); }),
            0);
  const std::string name(100, 'n');
  const std::int64_t shape[] = {300, 20};
  auto param = api::make<nibble_param_desc>();
  param.name = name.c_str(), param.shape = shape, param.n_dims = 2;
  std::int64_t count = 0;
  for (std::int64_t index = 0; index < 3; ++index) {
    const int failures = fail_each_allocation(
        [&] { return nibble_optimizer_add_param(opt, &param, nullptr, nullptr); },
        [&] {
          ASSERT_EQ(nibble_optimizer_param_count(opt, &count), NIBBLE_OK);
          ASSERT_EQ(count, index);
        });
    EXPECT_GT(failures, 5);
  }
  std::vector<float> weights(6000, 1.0F);
  std::vector<float> grad(6000, 1.0F);
  const void* grads[] = {grad.data(), grad.data(), grad.data()};
  for (std::int64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(nibble_optimizer_bind(opt, i, weights.data()), NIBBLE_OK);
  }
  auto step = api::make<nibble_step_desc>();
  step.grads = grads, step.n_grads = 3;
  const auto before = weights;
  fail_each_allocation([&] { return nibble_optimizer_step(opt, &step); },
                       [&] { EXPECT_EQ(weights, before); });
  EXPECT_NE(weights, before);
  std::int64_t steps = 0;
  nibble_optimizer_step_count(opt, &steps);
  EXPECT_EQ(steps, 1);
  nibble_optimizer_destroy(opt);
}

}  // namespace
}  // namespace nibble::test
