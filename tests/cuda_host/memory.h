// SPDX-License-Identifier: Apache-2.0
// Device memory, which the host cannot touch, and pinned memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda_host/control.h"

namespace nibble::cuda_host {

enum class MemoryKind { kDevice, kPinned };

struct Allocation {
  char* low = nullptr;
  std::size_t bytes = 0;
  MemoryKind kind = MemoryKind::kDevice;
  // With Settings::guard the allocation ends where a page without access begins.
  char* pages = nullptr;
  std::size_t page_bytes = 0;
};

// Bytes that an operation reads or writes.
struct Range {
  const void* low = nullptr;
  std::size_t bytes = 1;
};

class Memory {
 public:
  // Null where the allocation fails: no room on the card, or the test wanted it to.
  void* allocate(MemoryKind kind, std::size_t bytes, const Settings& settings);
  void free(const Allocation& allocation);
  void restart_count() { count_ = 0; }

  // The allocation in which the address lies, or null: then it is the host's, or nobody's.
  const Allocation* find(const void* address) const;
  // As find, when the address is the first one.
  const Allocation* find_start(const void* address) const;
  // Whether the range lies in one allocation of this kind.
  bool contains(const Range& range, MemoryKind kind) const;
  // "12 bytes past the end of ..." or the like, for messages.
  std::string describe(const void* address) const;

  // Device memory can be touched while a kernel or a copy runs.
  void open();
  void close();
  bool is_open() const { return open_; }
  // An allocation whose end was overwritten, or null. (Where no sanitizer or guard does it better.)
  const Allocation* find_overrun() const;

  std::size_t device_bytes() const { return device_bytes_; }
  std::size_t count(MemoryKind kind) const;

 private:
  static Allocation allocate_guarded(std::size_t bytes);
  static Allocation allocate_plain(std::size_t bytes, std::size_t alignment);

  std::map<std::uintptr_t, Allocation> allocations_;
  std::size_t device_bytes_ = 0;
  std::int64_t count_ = 0;
  bool open_ = false;
};

}  // namespace nibble::cuda_host
