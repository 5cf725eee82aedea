// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "cuda_host/sanitizers.h"

namespace nibble::cuda_host {
namespace {

constexpr std::size_t kGranule = 256;  // cudaMalloc's alignment, and the unit of the card's memory
constexpr std::size_t kPage = 4096;
constexpr int kUnwritten = 0xFF;
// In plain builds, bytes behind an allocation that must not change. Read as floats they are huge,
// so that what is read past the end shows.
constexpr std::size_t kCanary = sanitizers::kAddress ? 0 : 64;
constexpr int kCanaryByte = 0x7F;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

Allocation Memory::allocate_guarded(std::size_t bytes) {
  Allocation result;
  result.page_bytes = round_up(bytes, kPage);
  void* pages = mmap(nullptr, result.page_bytes + kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages != MAP_FAILED) {
    result.pages = static_cast<char*>(pages);
    mprotect(result.pages + result.page_bytes, kPage, PROT_NONE);
    // Only as aligned as float4 needs: the closer to the page's end, the more overruns are seen.
    result.low = result.pages + result.page_bytes - round_up(bytes, 16);
  }
  return result;
}

Allocation Memory::allocate_plain(std::size_t bytes, std::size_t alignment) {
  Allocation result;
  void* low = nullptr;
  if (posix_memalign(&low, alignment, bytes + kCanary) == 0) {
    result.low = static_cast<char*>(low);
    const sanitizers::Ignore ignore;
    std::memset(result.low + bytes, kCanaryByte, kCanary);
  }
  return result;
}

void* Memory::allocate(MemoryKind kind, std::size_t bytes, const Settings& settings) {
  const bool device = kind == MemoryKind::kDevice;
  const std::size_t charged = device ? round_up(bytes, kGranule) : 0;
  if (++count_ == settings.fail_allocation || charged < (device ? bytes : 0) ||
      charged > settings.memory - std::min(settings.memory, device_bytes_)) {
    return nullptr;
  }
  Allocation allocation = device && settings.guard
                              ? allocate_guarded(bytes)
                              : allocate_plain(bytes, device ? kGranule : kPage);
  if (allocation.low == nullptr) {
    return nullptr;
  }
  allocation.bytes = bytes;
  allocation.kind = kind;
  std::memset(allocation.low, kUnwritten, bytes);
  device_bytes_ += charged;
  allocations_[reinterpret_cast<std::uintptr_t>(allocation.low)] = allocation;
  if (device) {
    close();
  }
  return allocation.low;
}

void Memory::free(const Allocation& allocation) {
  const Allocation freed = allocation;
  allocations_.erase(reinterpret_cast<std::uintptr_t>(freed.low));
  if (freed.kind == MemoryKind::kDevice) {
    device_bytes_ -= round_up(freed.bytes, kGranule);
    sanitizers::unpoison(freed.low, freed.bytes);
  }
  if (freed.pages != nullptr) {
    munmap(freed.pages, freed.page_bytes + kPage);
  } else {
    std::free(freed.low);
  }
}

const Allocation* Memory::find(const void* address) const {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  auto after = allocations_.upper_bound(number);
  if (after == allocations_.begin()) {
    return nullptr;
  }
  const Allocation& candidate = std::prev(after)->second;
  return static_cast<const char*>(address) < candidate.low + candidate.bytes ? &candidate : nullptr;
}

const Allocation* Memory::find_start(const void* address) const {
  const Allocation* found = find(address);
  return found != nullptr && found->low == address ? found : nullptr;
}

bool Memory::contains(const Range& range, MemoryKind kind) const {
  const Allocation* found = find(range.low);
  if (found == nullptr || found->kind != kind) {
    return false;
  }
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(range.low) - found->low);
  return range.bytes <= found->bytes - offset;
}

std::string Memory::describe(const void* address) const {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  auto after = allocations_.upper_bound(number);
  if (after == allocations_.begin()) {
    return "no memory of the device";
  }
  const Allocation& below = std::prev(after)->second;
  const std::size_t offset = number - reinterpret_cast<std::uintptr_t>(below.low);
  const std::string owner = (below.kind == MemoryKind::kDevice ? "device" : "pinned") +
                            std::string(" allocation of ") + std::to_string(below.bytes) + " bytes";
  if (offset < below.bytes) {
    return "byte " + std::to_string(offset) + " of a " + owner;
  }
  return std::to_string(offset - below.bytes) + " bytes past the end of a " + owner;
}

void Memory::open() {
  open_ = true;
  for (const auto& [address, allocation] : allocations_) {
    if (allocation.kind == MemoryKind::kDevice) {
      sanitizers::unpoison(allocation.low, allocation.bytes);
      if (allocation.pages != nullptr) {
        mprotect(allocation.pages, allocation.page_bytes, PROT_READ | PROT_WRITE);
      }
    }
  }
}

void Memory::close() {
  open_ = false;
  for (const auto& [address, allocation] : allocations_) {
    if (allocation.kind == MemoryKind::kDevice) {
      sanitizers::poison(allocation.low, allocation.bytes);
      if (allocation.pages != nullptr) {
        mprotect(allocation.pages, allocation.page_bytes, PROT_NONE);
      }
    }
  }
}

const Allocation* Memory::find_overrun() const {
  for (const auto& [address, allocation] : allocations_) {
    if (allocation.pages == nullptr) {
      const char* canary = allocation.low + allocation.bytes;
      for (std::size_t i = 0; i < kCanary; ++i) {
        if (static_cast<unsigned char>(canary[i]) != kCanaryByte) {
          return &allocation;
        }
      }
    }
  }
  return nullptr;
}

std::size_t Memory::count(MemoryKind kind) const {
  return static_cast<std::size_t>(
      std::count_if(allocations_.begin(), allocations_.end(),
                    [&](const auto& entry) { return entry.second.kind == kind; }));
}

}  // namespace nibble::cuda_host
