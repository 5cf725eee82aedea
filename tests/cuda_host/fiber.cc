// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "cuda_host/sanitizers.h"

#ifndef NIBBLE_CUDA_HOST_UCONTEXT
// void nibble_cuda_host_switch(void** save, void* stack_pointer): the System V ABI's callee-saved
// registers go to the old stack, those of the new one come back. (The rounding mode is not touched:
// no kernel may change it.)
extern "C" void nibble_cuda_host_switch(void** save, void* stack_pointer);
asm(R"(
.text
.globl nibble_cuda_host_switch
.hidden nibble_cuda_host_switch
.type nibble_cuda_host_switch,@function
nibble_cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size nibble_cuda_host_switch,.-nibble_cuda_host_switch
)");
#endif

namespace nibble::cuda_host {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStackBytes = 128 << 10;  // sanitizers' frames are large

#ifdef NIBBLE_CUDA_HOST_ASAN
// Who switched last on this OS thread: whoever arrives tells it the bounds of the stack it left.
thread_local Context* left = nullptr;

void leave(Context& from, const Context& to) {
  left = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_low, to.stack_bytes);
}

void arrive(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &left->stack_low, &left->stack_bytes);
}
#else
void leave(Context&, const Context&) {}
void arrive(void*) {}
#endif

}  // namespace

void switch_context(Context& from, Context& to) {
  leave(from, to);
#ifdef NIBBLE_CUDA_HOST_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  nibble_cuda_host_switch(&from.stack_pointer, to.stack_pointer);
#endif
  arrive(from.fake_stack);
}

void arrived_in_new_fiber() { arrive(nullptr); }

Fiber::Fiber(unsigned number) : identity(sanitizers::create_identity()), number_(number) {
  void* memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
    throw std::bad_alloc();
  }
  stack_ = static_cast<char*>(memory) + kPage;
}

Fiber::~Fiber() {
  sanitizers::destroy_identity(identity);
  sanitizers::unpoison(stack_, kStackBytes);
  munmap(stack_ - kPage, kPage + kStackBytes);
}

void Fiber::renew_identity() {
  sanitizers::destroy_identity(identity);
  identity = sanitizers::create_identity();
}

void Fiber::restart(void (*entry)()) {
  sanitizers::unpoison(stack_, kStackBytes);
  context.stack_low = stack_;
  context.stack_bytes = kStackBytes;
  context.fake_stack = nullptr;
#ifdef NIBBLE_CUDA_HOST_UCONTEXT
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack_;
  context.registers.uc_stack.ss_size = kStackBytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
#else
  constexpr unsigned kSavedRegisters = 6;
  const std::size_t color = number_ * 320 % kPage / 16 * 16;
  auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + kStackBytes - color);
  *--top = 0;  // the return address of `entry`: ends every stack trace
  *--top = reinterpret_cast<std::uintptr_t>(entry);
  for (unsigned i = 0; i < kSavedRegisters; ++i) {
    *--top = 0;
  }
  context.stack_pointer = top;
#endif
}

}  // namespace nibble::cuda_host
