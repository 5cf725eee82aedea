// SPDX-License-Identifier: Apache-2.0
#include "cuda/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/status.h"
#include "cuda/check.h"

namespace nibble::cuda {
namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// Whether all of the device's work is done.
bool waited() {
  const bool out = cudaDeviceSynchronize() == cudaSuccess;
  static_cast<void>(cudaGetLastError());
  return out;
}

void free_memory(backend::MemoryKind kind, std::byte* memory) {
  static_cast<void>(kind == backend::MemoryKind::kPinned ? cudaFreeHost(memory) : cudaFree(memory));
}

}  // namespace

MemoryPool::~MemoryPool() {
  drop_cache(Kind::kDevice);
  drop_cache(Kind::kPinned);
}

// A block that is at most an eighth larger than what is asked for.
std::byte* MemoryPool::take_cached(Kind kind, std::uint64_t bytes, std::uint64_t* got) {
  Store& from = store(kind);
  const auto at = from.cached.lower_bound(bytes);
  if (at == from.cached.end() || at->first > bytes + bytes / 8) {
    return nullptr;
  }
  std::byte* memory = at->second;
  *got = at->first;
  from.cached_bytes -= at->first;
  from.cached.erase(at);
  return memory;
}

std::byte* MemoryPool::take_new(Kind kind, std::uint64_t bytes) {
  void* memory = nullptr;
  const bool pinned = kind == Kind::kPinned;
  const cudaError_t error = pinned ? cudaMallocHost(&memory, bytes) : cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check(error, pinned ? "cudaMallocHost" : "cudaMalloc");
  return static_cast<std::byte*>(memory);
}

void MemoryPool::drop_cache(Kind kind) {
  for (const auto& [bytes, memory] : store(kind).cached) {
    free_memory(kind, memory);
  }
  store(kind).cached.clear();
  store(kind).cached_bytes = 0;
}

std::byte* MemoryPool::allocate(Kind kind, std::uint64_t bytes, std::string_view purpose) {
  const std::lock_guard lock(mutex_);
  reclaim();
  // All of the host's memory comes first, so that nothing is lost if it runs out.
  decltype(used_) entry;
  entry.emplace(nullptr, Block{kind, 0, std::string(purpose)});
  auto node = entry.extract(entry.begin());

  const std::uint64_t limit = kind == Kind::kDevice ? limit_ : 0;
  Store& from = store(kind);
  std::uint64_t got = std::max<std::uint64_t>(bytes, 1);
  if (limit != 0 && got > limit - std::min(limit, from.used_bytes)) {
    refuse(kind, bytes, purpose);
  }
  std::byte* memory = take_cached(kind, got, &got);
  if (memory == nullptr) {
    if (limit != 0 && from.used_bytes + from.cached_bytes + got > limit) {
      drop_cache(kind);
    }
    memory = take_new(kind, got);
    if (memory == nullptr) {
      drop_cache(kind);
      memory = take_new(kind, got);
    }
    if (memory == nullptr) {
      refuse(kind, bytes, purpose);
    }
  }
  node.key() = memory;
  node.mapped().bytes = got;
  used_.insert(std::move(node));
  from.used_bytes += got;
  return memory;
}

bool MemoryPool::release(std::byte* memory) noexcept {
  if (memory == nullptr) {
    return true;
  }
  const bool is_idle = waited();
  const std::lock_guard lock(mutex_);
  auto block = used_.extract(memory);
  if (block.empty()) {
    return false;
  }
  if (is_idle) {
    cache(std::move(block));
  } else {
    retired_.insert(std::move(block));
  }
  return true;
}

void MemoryPool::cache(std::map<std::byte*, Block>::node_type block) noexcept {
  const auto [kind, bytes] = std::pair(block.mapped().kind, block.mapped().bytes);
  Store& to = store(kind);
  to.used_bytes -= bytes;
  try {
    to.cached.emplace(bytes, block.key());
    to.cached_bytes += bytes;
  } catch (const std::bad_alloc&) {
    free_memory(kind, block.key());
  }
}

void MemoryPool::reclaim() {
  if (retired_.empty() || !waited()) {
    return;
  }
  while (!retired_.empty()) {
    cache(retired_.extract(retired_.begin()));
  }
}

void MemoryPool::set_limit(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  reclaim();
  limit_ = bytes;
  drop_cache(Kind::kDevice);
}

std::vector<backend::DeviceAllocation> MemoryPool::list() const {
  std::map<std::pair<std::string, Kind>, backend::DeviceAllocation> by_purpose;
  for (const auto& [memory, block] : used_) {
    backend::DeviceAllocation& entry = by_purpose[{block.purpose, block.kind}];
    entry.purpose = block.purpose;
    entry.kind = block.kind;
    entry.bytes += block.bytes;
    ++entry.count;
  }
  std::vector<backend::DeviceAllocation> out;
  for (auto& [purpose, entry] : by_purpose) {
    out.push_back(std::move(entry));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return out;
}

std::vector<backend::DeviceAllocation> MemoryPool::allocations() const {
  const std::lock_guard lock(mutex_);
  return list();
}

void MemoryPool::refuse(Kind kind, std::uint64_t bytes, std::string_view purpose) const {
  std::string table;
  std::uint64_t used = 0;
  for (const backend::DeviceAllocation& entry : list()) {
    if (entry.kind == kind) {
      table += fmt::format("{}{} {:.2f} MiB ({} allocations)", table.empty() ? "" : ", ",
                           entry.purpose, mib(entry.bytes), entry.count);
      used += entry.bytes;
    }
  }
  table = table.empty() ? "nothing" : table;
  if (kind == Kind::kPinned) {
    fail(StatusCode::kOutOfMemory,
         "out of pinned memory: {} asks for {:.2f} MiB; in use here {:.2f} MiB: {}", purpose,
         mib(bytes), mib(used), table);
  }
  std::size_t free = 0;
  std::size_t total = 0;
  static_cast<void>(cudaMemGetInfo(&free, &total));
  fail(StatusCode::kOutOfMemory,
       "out of device memory: {} asks for {:.2f} MiB; in use here {:.2f} MiB of {:.2f}{}: {}",
       purpose, mib(bytes), mib(used), mib(limit_ != 0 ? limit_ : total),
       limit_ != 0 ? " (the limit)" : fmt::format(", {:.2f} MiB free on the device", mib(free)),
       table);
}

}  // namespace nibble::cuda
