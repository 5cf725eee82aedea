// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/worker.h"

#include <bit>

#include "cuda_host/sanitizers.h"
#include "cuda_host/text.h"

namespace nibble::cuda_host {

constinit thread_local Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;

Worker::Worker() : threads_(kMaxThreads), warps_(kMaxThreads / kWarpSize) {}

Worker::~Worker() = default;

void Worker::begin_launch(const Launch& launch, const Settings& settings, LaunchOrder& order) {
  launch_ = &launch;
  launch_order_ = &order;
  order_ = settings.order;
  error_.clear();
  host_identity_ = sanitizers::current_identity();
  sanitizers::release(&order.begin);
  place_.size = launch.block;
  place_.grid = launch.grid;
  place_.threads = launch.block.x * launch.block.y * launch.block.z;
  for (unsigned i = 0; i < place_.threads; ++i) {
    Thread& thread = threads_[i];
    thread.linear = i;
    thread.index = {i % launch.block.x, i / launch.block.x % launch.block.y,
                    i / (launch.block.x * launch.block.y)};
    thread.block = &place_;
    thread.worker = this;
  }
  // Two sets for ThreadSanitizer, to which a fiber's blocks are in order: neighbours must not be.
  make_fibers(place_.threads * (sanitizers::kThread ? 2 : 1));
  if (os_thread_ != std::this_thread::get_id()) {
    os_thread_ = std::this_thread::get_id();
    abandon_block();  // a stopped fiber may hold addresses of the other OS thread's variables
  }
}

void Worker::make_fibers(std::size_t count) {
  while (fibers_.size() < count) {
    fibers_.push_back(std::make_unique<Fiber>(static_cast<unsigned>(fibers_.size())));
    fibers_.back()->restart(fiber_entry);
    idle_.push_back(fibers_.back().get());
  }
}

void Worker::prepare_block(uint3 index, std::uint64_t seed) {
  place_.index = index;
  random_ = Random(seed);
  live_ = place_.threads;
  at_barrier_ = 0;
  barrier_order_ = nullptr;
  shared_.begin_block(launch_->shared_bytes, launch_->shared_limit);
  for (unsigned first = 0; first < live_; first += kWarpSize) {
    warps_[first / kWarpSize].begin_block(live_ - first);
  }
  ready_.clear();
  for (unsigned i = 0; i < live_; ++i) {
    Thread& thread = threads_[order_ == Order::kReverse ? live_ - 1 - i : i];
    thread.state = ThreadState::kNew;
    thread.fiber = nullptr;
    thread.committed_groups = 0;
    thread.copies.clear();
    thread.copies_taken = 0;
    ready_.push_back(&thread);
  }
}

bool Worker::run_block(uint3 index, std::uint64_t seed) {
  prepare_block(index, seed);
  running_ = &host_;
  hand_over(next_thread());
  const std::string overrun = shared_.end_block();
  if (error_.empty() && !overrun.empty()) {
    fail(overrun);
  } else if (!error_.empty()) {
    abandon_block();
  }
  while (!resting_.empty()) {
    idle_.push_back(resting_.pop_front());
  }
  return error_.empty();
}

// What the threads were doing is lost, without their destructors: as on a GPU.
void Worker::abandon_block() {
  for (Thread& thread : threads_) {
    if (sanitizers::kThread && thread.fiber != nullptr && thread.state != ThreadState::kExited) {
      sanitizers::become(thread.fiber->identity);
      sanitizers::release(&launch_order_->end);
      sanitizers::become(host_identity_);
      thread.fiber->renew_identity();
    }
    thread.fiber = nullptr;
  }
  idle_.clear();
  resting_.clear();
  for (const std::unique_ptr<Fiber>& fiber : fibers_) {
    fiber->restart(fiber_entry);
    idle_.push_back(fiber.get());
  }
}

void Worker::fiber_entry() {
  arrived_in_new_fiber();
  current->worker->run_threads();
}

// A fiber runs one thread after the other. As long as threads end without having waited, that makes
// a block a plain loop on one stack. Not so for ThreadSanitizer, for which a thread is its fiber.
void Worker::run_threads() {
  for (;;) {
    Thread& thread = *current;
    sanitizers::acquire(&launch_order_->begin);
    launch_->body();
    sanitizers::release(&launch_order_->end);
    exit_thread(thread);
    Thread* next = next_thread();
    if (!sanitizers::kThread && next != nullptr && next->state == ThreadState::kNew) {
      next->state = ThreadState::kReady;
      next->fiber = thread.fiber;
      current = next;
      continue;
    }
    if (sanitizers::kThread) {
      resting_.push_back(thread.fiber);
    } else {
      idle_.push_back(thread.fiber);
    }
    hand_over(next);
  }
}

void Worker::exit_thread(Thread& thread) {
  thread.state = ThreadState::kExited;
  --live_;
  warps_[thread.linear / kWarpSize].lane_exits(thread.linear % kWarpSize);
}

Thread* Worker::next_thread() {
  while (ready_.empty()) {
    if (live_ == 0) {
      return nullptr;
    }
    if (!release_barrier() && !finish_groups_without_exited_lanes()) {
      report_deadlock();
    }
    if (!error_.empty()) {
      return nullptr;
    }
  }
  return order_ == Order::kRandom ? ready_.pop_any(random_) : ready_.pop();
}

// Goes on with `next`, or with the host if there is none. Returns when the caller is to go on.
void Worker::hand_over(Thread* next) {
  Context* target = &host_;
  if (next != nullptr) {
    if (next->state == ThreadState::kNew) {
      // The one used last is warm; ThreadSanitizer needs the one used longest ago.
      next->fiber = sanitizers::kThread ? idle_.pop_front() : idle_.pop_back();
      next->state = ThreadState::kReady;
    }
    target = &next->fiber->context;
  }
  current = next;
  sanitizers::become(next != nullptr ? next->fiber->identity : host_identity_);
  Context* from = running_;
  running_ = target;
  switch_context(*from, *target);
}

void Worker::wait(Thread& thread, ThreadState state, Site site) {
  thread.state = state;
  thread.site = site;
  Thread* next = next_thread();
  if (next != &thread) {
    hand_over(next);
  }
}

void Worker::make_ready(Thread& thread) {
  thread.state = ThreadState::kReady;
  ready_.push_back(&thread);
}

void* Worker::new_order_object() {
  return &order_objects_[next_order_object_++ % order_objects_.size()];
}

int Worker::wait_at_barrier(Barrier kind, int predicate, Site site) {
  Thread& thread = *current;
  thread.predicate = predicate;
  if (at_barrier_++ == 0) {
    barrier_kind_ = kind;
    barrier_order_ = new_order_object();
  }
  void* order = barrier_order_;
  sanitizers::release(order);
  wait(thread, ThreadState::kAtBarrier, site);
  sanitizers::acquire(order);
  return barrier_result_;
}

std::uint64_t Worker::warp_operation(WarpOperation kind, unsigned mask, std::uint64_t operand,
                                     unsigned source, Site site) {
  Thread& thread = *current;
  const unsigned lane = thread.linear % kWarpSize;
  const unsigned warp_index = thread.linear / kWarpSize;
  Warp& warp = warps_[warp_index];
  if ((mask >> lane & 1) == 0) {
    fail_here("lane " + std::to_string(lane) + " is not in its own mask " + hex(mask), site);
  }
  WarpGroup& group = warp.group(mask);
  const bool orders = sanitizers::kThread && kind == WarpOperation::kSync;
  if (group.arrived == 0) {
    group.kind = kind;
    group.site = site;
    group.order = orders ? new_order_object() : nullptr;
  } else if (std::string why = Warp::mismatch(group, kind, site); !why.empty()) {
    fail_here(std::move(why), site);
  }
  void* order = group.order;
  if (orders) {
    sanitizers::release(order);
  }
  warp.deposit(lane, operand, source);
  group.arrived |= 1U << lane;
  if (warp.complete(group)) {
    finish_group(warp_index, group, &thread);
    if (!error_.empty()) {
      hand_over(nullptr);
    }
  } else {
    wait(thread, ThreadState::kInWarp, site);
  }
  if (orders) {  // a shuffle orders nothing: CUDA's rule
    sanitizers::acquire(order);
  }
  return warp.result(lane);
}

// The other lanes go on before all other threads, for the cache's sake.
void Worker::finish_group(unsigned warp, WarpGroup& group, const Thread* last) {
  unsigned lanes = group.arrived;
  const std::string what = warps_[warp].finish(group);
  if (!what.empty()) {
    fail("warp " + std::to_string(warp) + ": " + what);
    return;
  }
  while (lanes != 0) {
    const unsigned lane = order_ == Order::kReverse
                              ? static_cast<unsigned>(std::countr_zero(lanes))
                              : 31U - static_cast<unsigned>(std::countl_zero(lanes));
    lanes &= ~(1U << lane);
    Thread& thread = threads_[warp * kWarpSize + lane];
    if (&thread != last) {
      thread.state = ThreadState::kReady;
      ready_.push_front(&thread);
    }
  }
}

bool Worker::finish_groups_without_exited_lanes() {
  bool any = false;
  for (unsigned warp = 0; warp * kWarpSize < place_.threads; ++warp) {
    while (WarpGroup* group = warps_[warp].find_complete()) {
      finish_group(warp, *group, nullptr);
      any = true;
    }
  }
  return any;
}

}  // namespace nibble::cuda_host
