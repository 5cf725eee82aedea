// SPDX-License-Identifier: Apache-2.0
#include "support/failing_allocations.h"

#include <cstdlib>
#include <new>

// The replaced operators below belong together, which g++ does not see once one is inlined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace nibble::test {

std::atomic<int> allocations_left{-1};
std::atomic<int> allocations{0};

}  // namespace nibble::test

namespace {

using nibble::test::allocations;
using nibble::test::allocations_left;

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
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
// Who asks so can do without (std::stable_sort's buffer): not a case.
EXPORTED void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return std::malloc(n);
}
EXPORTED void operator delete(void* p) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::size_t) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
EXPORTED void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#if defined(__SANITIZE_ADDRESS__)
// The JSON library loses a few bytes when memory runs out inside its own constructors.
extern "C" EXPORTED const char* __lsan_default_suppressions();
extern "C" EXPORTED const char* __lsan_default_suppressions() { return "leak:nlohmann\n"; }
#endif
