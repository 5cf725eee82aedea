// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "cuda_host/sanitizers.h"

namespace nibble::cuda_host {
namespace {

constexpr std::size_t kArenaBytes = 1 << 20;
constexpr std::size_t kRedZone = 64;
constexpr int kRedZoneByte = 0xA5;
constexpr int kUnwritten = 0xFF;

char* map(char* at, std::size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at != nullptr ? MAP_FIXED : 0);
  void* memory = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  return static_cast<char*>(memory);
}

bool red_zone_intact(const char* low) {
  return std::all_of(low, low + kRedZone,
                     [](char byte) { return static_cast<unsigned char>(byte) == kRedZoneByte; });
}

unsigned slot_of(SharedArray& array) {
  static std::atomic<unsigned> given{0};
  unsigned slot = array.slot.load(std::memory_order_acquire);
  if (slot == 0) {
    const unsigned fresh = ++given;
    slot = array.slot.compare_exchange_strong(slot, fresh) ? fresh : slot;
  }
  return slot;
}

}  // namespace

// Only what the last block used is made new for the next one: the rest is as it was at first.
SharedMemory::SharedMemory() : arena_(map(nullptr, kArenaBytes)), top_(arena_) {
  sanitizers::poison(arena_, kArenaBytes);
}

SharedMemory::~SharedMemory() {
  sanitizers::unpoison(arena_, kArenaBytes);
  munmap(arena_, kArenaBytes);
}

// For ThreadSanitizer each block must find memory that nobody has used before.
void SharedMemory::forget_history() {
  if (sanitizers::kThread && top_ != arena_) {
    const auto used = static_cast<std::size_t>(top_ - arena_);
    munmap(arena_, used);
    map(arena_, used);
  }
}

void SharedMemory::begin_block(std::size_t dynamic_bytes, std::size_t limit) {
  const sanitizers::Ignore ignore;
  forget_history();
  ++block_;
  used_slots_.clear();
  used_bytes_ = dynamic_bytes;
  limit_ = limit;
  sanitizers::unpoison(arena_, kRedZone);
  std::memset(arena_, kRedZoneByte, kRedZone);
  sanitizers::poison(arena_, static_cast<std::size_t>(top_ - arena_) + kRedZone);
  top_ = arena_ + kRedZone;
  dynamic_bytes_ = dynamic_bytes;
  dynamic_ = dynamic_bytes != 0 ? take(dynamic_bytes, 16) : nullptr;
}

char* SharedMemory::take(std::size_t bytes, std::size_t alignment) {
  const auto address = reinterpret_cast<std::uintptr_t>(top_);
  char* low = top_ + (alignment - address % alignment) % alignment;
  sanitizers::unpoison(low, bytes + kRedZone);
  std::memset(low, kUnwritten, bytes);
  std::memset(low + bytes, kRedZoneByte, kRedZone);
  sanitizers::poison(low + bytes, kRedZone);
  top_ = low + bytes + kRedZone;
  return low;
}

void* SharedMemory::array(SharedArray& array, std::size_t bytes, std::size_t alignment) {
  const unsigned index = slot_of(array);
  if (index >= slots_.size() || slots_[index].block != block_) {
    const sanitizers::Ignore ignore;
    slots_.resize(std::max<std::size_t>(slots_.size(), index + 1));
    used_bytes_ += bytes;
    if (used_bytes_ > limit_) {
      return nullptr;
    }
    // 16: a kernel may copy with cp.async or float4 into arrays of floats it knows to be aligned.
    slots_[index] = {&array, block_, take(bytes, std::max<std::size_t>(alignment, 16)), bytes};
    used_slots_.push_back(index);
  }
  return slots_[index].low;
}

std::string SharedMemory::end_block() {
  sanitizers::unpoison(arena_, static_cast<std::size_t>(top_ - arena_));
  if (!red_zone_intact(arena_)) {
    return "the bytes before the first shared array were overwritten";
  }
  if (dynamic_ != nullptr && !red_zone_intact(dynamic_ + dynamic_bytes_)) {
    return "dynamic shared memory of " + std::to_string(dynamic_bytes_) + " bytes was overrun";
  }
  for (const unsigned index : used_slots_) {
    const Slot& slot = slots_[index];
    if (!red_zone_intact(slot.low + slot.bytes)) {
      return std::string("shared array '") + slot.array->name + "' (" + slot.array->site.file +
             ":" + std::to_string(slot.array->site.line) + ", " + std::to_string(slot.bytes) +
             " bytes) was overrun";
    }
  }
  return {};
}

}  // namespace nibble::cuda_host
