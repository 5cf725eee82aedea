// SPDX-License-Identifier: Apache-2.0
// The device's memory: plain cudaMalloc behind a cache, with a hard limit and a purpose for every
// allocation. Never managed memory, which can hang a GPU when it is over-subscribed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "backend/device.h"

namespace nibble::cuda {

// Thread-safe. Works on the device that is current when it is called.
class MemoryPool {
 public:
  MemoryPool() = default;
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  std::byte* allocate(std::uint64_t bytes, std::string_view purpose);
  // Waits for the device, so that no work of any stream still uses the memory when it is given
  // out again.
  void release(std::byte* memory) noexcept;
  void set_limit(std::uint64_t bytes);
  std::vector<backend::DeviceAllocation> allocations() const;

 private:
  struct Block {
    std::uint64_t bytes;
    std::string purpose;
  };
  std::byte* take_cached(std::uint64_t bytes, std::uint64_t* got);
  std::byte* take_new(std::uint64_t bytes);
  void drop_cache();
  std::vector<backend::DeviceAllocation> list() const;
  [[noreturn]] void refuse(std::uint64_t bytes, std::string_view purpose) const;

  mutable std::mutex mutex_;
  std::map<std::byte*, Block> used_;
  std::multimap<std::uint64_t, std::byte*> cached_;  // by size
  std::uint64_t used_bytes_ = 0, cached_bytes_ = 0;
  std::uint64_t limit_ = 0;
};

}  // namespace nibble::cuda
