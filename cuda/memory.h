// SPDX-License-Identifier: Apache-2.0
// The device's memory, and pinned memory of the host: plain cudaMalloc and cudaMallocHost behind a
// cache, with a hard limit and a purpose for every allocation. Never managed memory, which can hang
// a GPU when it is over-subscribed.
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
  using Kind = backend::MemoryKind;

  MemoryPool() = default;
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  std::byte* allocate(Kind kind, std::uint64_t bytes, std::string_view purpose);
  // Waits for the device, so that no work of any stream still uses the memory when it is given
  // out again; where it cannot be waited for (a stream is capturing), that happens before the next
  // allocation. False: it is none of this pool's.
  bool release(std::byte* memory) noexcept;
  // Of Kind::kDevice.
  void set_limit(std::uint64_t bytes);
  std::vector<backend::DeviceAllocation> allocations() const;

 private:
  struct Block {
    Kind kind;
    std::uint64_t bytes;
    std::string purpose;
  };
  // What a kind of memory holds in all.
  struct Store {
    std::multimap<std::uint64_t, std::byte*> cached;  // by size
    std::uint64_t used_bytes = 0, cached_bytes = 0;
  };

  Store& store(Kind kind) { return stores_[static_cast<std::size_t>(kind)]; }
  std::byte* take_cached(Kind kind, std::uint64_t bytes, std::uint64_t* got);
  std::byte* take_new(Kind kind, std::uint64_t bytes);
  void drop_cache(Kind kind);
  void cache(std::map<std::byte*, Block>::node_type block) noexcept;
  void reclaim();
  std::vector<backend::DeviceAllocation> list() const;
  [[noreturn]] void refuse(Kind kind, std::uint64_t bytes, std::string_view purpose) const;

  mutable std::mutex mutex_;
  std::map<std::byte*, Block> used_;
  std::map<std::byte*, Block> retired_;  // released, but perhaps still used by the device
  Store stores_[2];
  std::uint64_t limit_ = 0;
};

}  // namespace nibble::cuda
