// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/control.h"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "cuda_host/runtime.h"

namespace nibble::cuda_host {
namespace {

[[noreturn]] void refuse(const char* name, const std::string& value, const char* expected) {
  std::fprintf(stderr, "%s=%s: %s expected\n", name, value.c_str(), expected);
  std::exit(2);
}

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// `value` as it was unless the variable is set. A unit K, M or G is allowed.
template <class T>
void read_number(const char* name, T& value) {
  const std::string word = from_environment(name);
  if (word.empty()) {
    return;
  }
  char* end = nullptr;
  std::uint64_t number = std::strtoull(word.c_str(), &end, 10);
  const std::string unit = end;
  if (end == word.c_str() || (!unit.empty() && unit != "K" && unit != "M" && unit != "G")) {
    refuse(name, word, "a number, perhaps with K, M or G,");
  }
  number <<= unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : 0;
  value = static_cast<T>(number);
}

Settings initial_settings() {
  Settings result;
  const std::string order = from_environment("NIBBLE_CUDA_HOST_ORDER");
  if (order == "reverse") {
    result.order = Order::kReverse;
  } else if (order == "random") {
    result.order = Order::kRandom;
  } else if (!order.empty() && order != "inorder") {
    refuse("NIBBLE_CUDA_HOST_ORDER", order, "inorder, reverse or random");
  }
  const std::string streams = from_environment("NIBBLE_CUDA_HOST_STREAMS");
  if (streams == "lazy") {
    result.streams = Streams::kLazy;
  } else if (!streams.empty() && streams != "sync") {
    refuse("NIBBLE_CUDA_HOST_STREAMS", streams, "sync or lazy");
  }
  read_number("NIBBLE_CUDA_HOST_SEED", result.seed);
  read_number("NIBBLE_CUDA_HOST_WORKERS", result.workers);
  read_number("NIBBLE_CUDA_HOST_MEMORY", result.memory);
  read_number("NIBBLE_CUDA_HOST_FAIL", result.fail_allocation);
  unsigned guard = 0;
  read_number("NIBBLE_CUDA_HOST_GUARD", guard);
  result.guard = guard != 0;
  return result;
}

}  // namespace

Settings& settings() {
  static Settings current_settings = initial_settings();
  return current_settings;
}

void reset() {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  rt.streams.end_captures();
  rt.streams.run_all();
  rt.sticky = cudaSuccess;
  last_error() = cudaSuccess;
  rt.message.clear();
  rt.memory.restart_count();
  rt.streams.set_seed(settings().seed);
}

std::string last_message() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().message;
}

std::string replay_line() {
  static constexpr const char* kOrders[] = {"inorder", "reverse", "random"};
  static constexpr const char* kStreams[] = {"sync", "lazy"};
  const Settings& now = settings();
  return std::string("NIBBLE_CUDA_HOST_ORDER=") + kOrders[static_cast<int>(now.order)] +
         " NIBBLE_CUDA_HOST_SEED=" + std::to_string(now.seed) +
         " NIBBLE_CUDA_HOST_WORKERS=" + std::to_string(now.workers) +
         " NIBBLE_CUDA_HOST_STREAMS=" + kStreams[static_cast<int>(now.streams)] +
         " NIBBLE_CUDA_HOST_MEMORY=" + std::to_string(now.memory) +
         " NIBBLE_CUDA_HOST_FAIL=" + std::to_string(now.fail_allocation) +
         " NIBBLE_CUDA_HOST_GUARD=" + (now.guard ? "1" : "0");
}

std::size_t live_device_bytes() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().memory.device_bytes();
}

std::size_t live_device_allocations() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().memory.count(MemoryKind::kDevice);
}

std::size_t live_pinned_allocations() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().memory.count(MemoryKind::kPinned);
}

bool is_stand_in() { return true; }

}  // namespace nibble::cuda_host
