// SPDX-License-Identifier: Apache-2.0
// What a test may set and ask of the stand-in. Against the real runtime (control_gpu.cc) settings
// have no effect, counters are zero, and is_stand_in() is false.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nibble::cuda_host {

enum class Order {
  kInOrder,  // warp by warp, lanes and blocks upwards
  kReverse,  // downwards
  kRandom    // drawn from the seed whenever a thread has to wait
};

enum class Streams {
  kSync,  // every operation runs when it is enqueued
  kLazy   // as late as the caller's synchronisation allows, streams interleaved by the seed
};

// Each comes from the environment variable beside it, if that is set; sizes take K, M or G.
struct Settings {
  Order order = Order::kInOrder;              // NIBBLE_CUDA_HOST_ORDER: inorder, reverse, random
  std::uint64_t seed = 0;                     // NIBBLE_CUDA_HOST_SEED
  unsigned workers = 1;                       // NIBBLE_CUDA_HOST_WORKERS: OS threads for blocks
  Streams streams = Streams::kSync;           // NIBBLE_CUDA_HOST_STREAMS: sync, lazy
  std::size_t memory = std::size_t{1} << 30;  // NIBBLE_CUDA_HOST_MEMORY: bytes of the "card"
  std::int64_t fail_allocation = 0;           // NIBBLE_CUDA_HOST_FAIL: the n-th after a reset()
  bool guard = false;                         // NIBBLE_CUDA_HOST_GUARD: 0, 1; see README.md
};

// Takes effect at the next call of the runtime. Not to be changed while other threads use it.
Settings& settings();

// Runs what is queued, ends captures, clears errors, and starts counting allocations anew. What is
// allocated stays.
void reset();

// What was found first since the last reset(): kernel, source line and thread. Empty if nothing.
std::string last_message();

// The settings as NAME=VALUE words, with which a failing test runs again just so.
std::string replay_line();

std::size_t live_device_bytes();  // as the limit counts them: in multiples of 256
std::size_t live_device_allocations();
std::size_t live_pinned_allocations();
bool is_stand_in();

}  // namespace nibble::cuda_host
