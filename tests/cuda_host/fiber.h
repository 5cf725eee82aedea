// SPDX-License-Identifier: Apache-2.0
// Stacks and the switch between them.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(NIBBLE_CUDA_HOST_UCONTEXT)
#define NIBBLE_CUDA_HOST_UCONTEXT 1  // portable, but each switch makes two system calls
#endif

#ifdef NIBBLE_CUDA_HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace nibble::cuda_host {

// A place where execution stopped and can go on.
struct Context {
#ifdef NIBBLE_CUDA_HOST_UCONTEXT
  ucontext_t registers{};
#else
  void* stack_pointer = nullptr;  // the callee-saved registers lie on the stack
#endif
  // For AddressSanitizer. A thread's own stack is learnt when the first fiber comes from it.
  const void* stack_low = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;
};

// Leaves `from` and goes on at `to`; returns when something switches back to `from`.
void switch_context(Context& from, Context& to);
// To be called first thing by the function in which a fiber starts.
void arrived_in_new_fiber();

// A stack with a guard page below it.
class Fiber {
 public:
  // `number` moves the first frame, so that the stacks do not all compete for the same cache sets.
  explicit Fiber(unsigned number);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Forgets what runs on the stack; the next switch to it calls `entry`, which never returns.
  void restart(void (*entry)());
  // Has ThreadSanitizer forget the functions in which an abandoned thread was.
  void renew_identity();

  Context context;
  void* identity;  // for ThreadSanitizer

 private:
  char* stack_;
  unsigned number_;
};

}  // namespace nibble::cuda_host
