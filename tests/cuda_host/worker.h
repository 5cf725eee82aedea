// SPDX-License-Identifier: Apache-2.0
// Runs the blocks of a launch one after the other: every CUDA thread is a fiber, and where it has
// to wait it hands over to the next one directly.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cuda_host/control.h"
#include "cuda_host/execution.h"
#include "cuda_host/fiber.h"
#include "cuda_host/random.h"
#include "cuda_host/shared_memory.h"
#include "cuda_host/warp.h"

namespace nibble::cuda_host {

inline constexpr unsigned kMaxThreads = 1024;

// Threads that can run, in the order in which they shall.
class ReadyQueue {
 public:
  bool empty() const { return count_ == 0; }
  void clear() { count_ = 0; }
  void push_back(Thread* thread) { ring_[(head_ + count_++) % kCapacity] = thread; }
  void push_front(Thread* thread) {
    head_ = (head_ + kCapacity - 1) % kCapacity;
    ring_[head_] = thread;
    ++count_;
  }
  Thread* pop() {
    Thread* thread = ring_[head_];
    head_ = (head_ + 1) % kCapacity;
    --count_;
    return thread;
  }
  Thread* pop_any(Random& random) {
    const auto chosen = static_cast<unsigned>(random.below(count_));
    std::swap(ring_[head_], ring_[(head_ + chosen) % kCapacity]);
    return pop();
  }

 private:
  static constexpr unsigned kCapacity = kMaxThreads;
  std::array<Thread*, kCapacity> ring_{};
  unsigned head_ = 0;
  unsigned count_ = 0;
};

// Fibers without a thread. (Nothing is allocated while CUDA threads run: ThreadSanitizer would see
// one thread's memory freed by another.)
class FiberQueue {
 public:
  void clear() { count_ = 0; }
  void push_back(Fiber* fiber) { ring_[(head_ + count_++) % kCapacity] = fiber; }
  Fiber* pop_front() {
    Fiber* fiber = ring_[head_];
    head_ = (head_ + 1) % kCapacity;
    --count_;
    return fiber;
  }
  Fiber* pop_back() { return ring_[(head_ + --count_) % kCapacity]; }
  bool empty() const { return count_ == 0; }

 private:
  static constexpr unsigned kCapacity = 2 * kMaxThreads;
  std::array<Fiber*, kCapacity> ring_{};
  unsigned head_ = 0;
  unsigned count_ = 0;
};

// What orders the whole launch against the host, for ThreadSanitizer.
struct LaunchOrder {
  char begin = 0;
  char end = 0;
};

class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // To be called on the OS thread that will run the blocks.
  void begin_launch(const Launch& launch, const Settings& settings, LaunchOrder& order);
  // False if the block went wrong; error() says how.
  bool run_block(uint3 index, std::uint64_t seed);
  const std::string& error() const { return error_; }
  const Launch& launch() const { return *launch_; }

  // Called by the running CUDA thread.
  int wait_at_barrier(Barrier kind, int predicate, Site site);
  std::uint64_t warp_operation(WarpOperation kind, unsigned mask, std::uint64_t operand,
                               unsigned source, Site site);
  SharedMemory& shared_memory() { return shared_; }
  [[noreturn]] void fail_here(std::string what, Site site);

 private:
  static void fiber_entry();
  [[noreturn]] void run_threads();
  void prepare_block(uint3 index, std::uint64_t seed);
  void abandon_block();
  void make_fibers(std::size_t count);

  void exit_thread(Thread& thread);
  Thread* next_thread();  // null when the block is done or has failed
  void hand_over(Thread* next);
  void wait(Thread& thread, ThreadState state, Site site);
  void make_ready(Thread& thread);

  bool release_barrier();
  void finish_group(unsigned warp, WarpGroup& group, const Thread* last);
  bool finish_groups_without_exited_lanes();
  void fail(const std::string& what);
  void report_deadlock();
  std::string describe_state(const Thread& thread) const;
  std::string describe(const Thread& thread) const;
  void* new_order_object();

  const Launch* launch_ = nullptr;
  LaunchOrder* launch_order_ = nullptr;
  Order order_ = Order::kInOrder;
  Random random_;
  BlockPlace place_;
  std::string error_;
  unsigned live_ = 0;

  ReadyQueue ready_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  SharedMemory shared_;

  unsigned at_barrier_ = 0;
  Barrier barrier_kind_ = Barrier::kPlain;
  int barrier_result_ = 0;
  void* barrier_order_ = nullptr;

  std::thread::id os_thread_;
  Context host_;
  Context* running_ = nullptr;
  void* host_identity_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  FiberQueue idle_;
  FiberQueue resting_;  // see run_threads

  // Objects on which ThreadSanitizer sees barriers. Each barrier takes another one: with a single
  // one, a later barrier's release would leak into an earlier one's acquire and hide races, and so
  // would the barriers of another block.
  std::array<std::uint64_t, 4096> order_objects_{};
  unsigned next_order_object_ = 0;
};

}  // namespace nibble::cuda_host
