// SPDX-License-Identifier: Apache-2.0
#include "cuda/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/status.h"
#include "cuda/check.h"

namespace nibble::cuda {
namespace {

constexpr std::uint64_t kGranularity = 512;
constexpr std::size_t kPurposesTold = 8;

std::uint64_t rounded(std::uint64_t bytes) {
  return (std::max<std::uint64_t>(bytes, 1) + kGranularity - 1) / kGranularity * kGranularity;
}

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

MemoryPool::~MemoryPool() { drop_cache(); }

// A block that is at most an eighth larger than what is asked for.
std::byte* MemoryPool::take_cached(std::uint64_t bytes, std::uint64_t* got) {
  const auto at = cached_.lower_bound(bytes);
  if (at == cached_.end() || at->first > bytes + bytes / 8) {
    return nullptr;
  }
  std::byte* memory = at->second;
  *got = at->first;
  cached_bytes_ -= at->first;
  cached_.erase(at);
  return memory;
}

std::byte* MemoryPool::take_new(std::uint64_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check(error, "cudaMalloc");
  return static_cast<std::byte*>(memory);
}

void MemoryPool::drop_cache() {
  for (const auto& [bytes, memory] : cached_) {
    static_cast<void>(cudaFree(memory));
  }
  cached_.clear();
  cached_bytes_ = 0;
}

std::byte* MemoryPool::allocate(std::uint64_t bytes, std::string_view purpose) {
  const std::lock_guard lock(mutex_);
  // All of the host's memory comes first, so that nothing is lost if it runs out.
  decltype(used_) entry;
  entry.emplace(nullptr, Block{0, std::string(purpose)});
  auto node = entry.extract(entry.begin());

  std::uint64_t got = rounded(bytes);
  if (limit_ != 0 && got > limit_ - std::min(limit_, used_bytes_)) {
    refuse(bytes, purpose);
  }
  std::byte* memory = take_cached(got, &got);
  if (memory == nullptr) {
    if (limit_ != 0 && used_bytes_ + cached_bytes_ + got > limit_) {
      drop_cache();
    }
    memory = take_new(got);
    if (memory == nullptr) {
      drop_cache();
      memory = take_new(got);
    }
    if (memory == nullptr) {
      refuse(bytes, purpose);
    }
  }
  node.key() = memory;
  node.mapped().bytes = got;
  used_.insert(std::move(node));
  used_bytes_ += got;
  return memory;
}

void MemoryPool::release(std::byte* memory) noexcept {
  if (memory == nullptr) {
    return;
  }
  static_cast<void>(cudaDeviceSynchronize());
  const std::lock_guard lock(mutex_);
  const auto at = used_.find(memory);
  const std::uint64_t bytes = at->second.bytes;
  used_bytes_ -= bytes;
  used_.erase(at);
  try {
    cached_.emplace(bytes, memory);
    cached_bytes_ += bytes;
  } catch (const std::bad_alloc&) {
    static_cast<void>(cudaFree(memory));
  }
}

void MemoryPool::set_limit(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
  drop_cache();
}

std::vector<backend::DeviceAllocation> MemoryPool::list() const {
  std::map<std::string, backend::DeviceAllocation> by_purpose;
  for (const auto& [memory, block] : used_) {
    backend::DeviceAllocation& entry = by_purpose[block.purpose];
    entry.purpose = block.purpose;
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

void MemoryPool::refuse(std::uint64_t bytes, std::string_view purpose) const {
  std::size_t free = 0;
  std::size_t total = 0;
  static_cast<void>(cudaMemGetInfo(&free, &total));
  std::string table;
  const auto entries = list();
  for (std::size_t i = 0; i < entries.size() && i < kPurposesTold; ++i) {
    table += fmt::format("{}{} {:.2f} MiB ({} allocations)", i == 0 ? "" : ", ", entries[i].purpose,
                         mib(entries[i].bytes), entries[i].count);
  }
  fail(StatusCode::kOutOfMemory,
       "out of device memory: {} asks for {:.2f} MiB; in use here {:.2f} MiB of {:.2f}{}: {}",
       purpose, mib(bytes), mib(used_bytes_), mib(limit_ != 0 ? limit_ : total),
       limit_ != 0 ? " (the limit)" : fmt::format(", {:.2f} MiB free on the device", mib(free)),
       table.empty() ? "nothing" : table);
}

}  // namespace nibble::cuda
