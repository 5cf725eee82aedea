// SPDX-License-Identifier: Apache-2.0
// What the sanitizers have to be told, as functions that do nothing in other builds.
//
// ThreadSanitizer: every CUDA thread is a TSan fiber, and switching between them orders nothing;
// only barriers, launches and ends of launches do. The stand-in itself is compiled without
// -fsanitize=thread (with NIBBLE_CUDA_HOST_TSAN defined), so its own bookkeeping is not watched.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define NIBBLE_CUDA_HOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_CUDA_HOST_ASAN 1
#endif
#endif

#ifdef NIBBLE_CUDA_HOST_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef NIBBLE_CUDA_HOST_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace nibble::cuda_host::sanitizers {

#ifdef NIBBLE_CUDA_HOST_ASAN
inline constexpr bool kAddress = true;
inline void poison(const void* low, std::size_t bytes) { __asan_poison_memory_region(low, bytes); }
inline void unpoison(const void* low, std::size_t bytes) {
  __asan_unpoison_memory_region(low, bytes);
}
#else
inline constexpr bool kAddress = false;
inline void poison(const void*, std::size_t) {}
inline void unpoison(const void*, std::size_t) {}
#endif

#ifdef NIBBLE_CUDA_HOST_TSAN
inline constexpr bool kThread = true;
inline void* current_identity() { return __tsan_get_current_fiber(); }
inline void* create_identity() { return __tsan_create_fiber(0); }
inline void destroy_identity(void* identity) { __tsan_destroy_fiber(identity); }
inline void become(void* identity) {
  constexpr unsigned kOrderNothing = 1;
  __tsan_switch_to_fiber(identity, kOrderNothing);
}
inline void acquire(void* object) { __tsan_acquire(object); }
inline void release(void* object) { __tsan_release(object); }

// While one lives, accesses and mappings of this thread leave no trace in TSan's history.
class Ignore {
 public:
  Ignore() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Ignore() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Ignore(const Ignore&) = delete;
  Ignore& operator=(const Ignore&) = delete;
};
#else
inline constexpr bool kThread = false;
inline void* current_identity() { return nullptr; }
inline void* create_identity() { return nullptr; }
inline void destroy_identity(void*) {}
inline void become(void*) {}
inline void acquire(void*) {}
inline void release(void*) {}
class Ignore {
 public:
  Ignore() {}
  ~Ignore() {}
  Ignore(const Ignore&) = delete;
  Ignore& operator=(const Ignore&) = delete;
};
#endif

}  // namespace nibble::cuda_host::sanitizers
