// SPDX-License-Identifier: Apache-2.0
// Atomics and fences of CUDA. Part of device.h. Blocks may run on several OS threads, so these are
// real atomics. They are stronger (acquire, release) than CUDA's, which are relaxed: a fence that
// is missing between blocks is not found.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda_host/execution.h"

namespace nibble::cuda_host {

// Replaces *address by change(*address) in one step; the old value comes back.
template <class T, class Change>
inline T atomic_change(T* address, Change change) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static_assert(sizeof(T) == sizeof(Bits));
  auto* cell = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(cell, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(cell, &old,
                                      std::bit_cast<Bits>(change(std::bit_cast<T>(old))), false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  return std::bit_cast<T>(old);
}

// The integer types for which CUDA has the operation.
template <class T>
concept AtomicInteger =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
concept AtomicAddend = AtomicInteger<T> || std::is_same_v<T, float> || std::is_same_v<T, double>;

}  // namespace nibble::cuda_host

template <nibble::cuda_host::AtomicAddend T>
inline T atomicAdd(T* address, std::type_identity_t<T> value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
  } else {
    return nibble::cuda_host::atomic_change(address, [value](T old) { return old + value; });
  }
}

template <nibble::cuda_host::AtomicInteger T>
inline T atomicMax(T* address, std::type_identity_t<T> value) {
  return nibble::cuda_host::atomic_change(address,
                                          [value](T old) { return old < value ? value : old; });
}

template <nibble::cuda_host::AtomicInteger T>
inline T atomicMin(T* address, std::type_identity_t<T> value) {
  return nibble::cuda_host::atomic_change(address,
                                          [value](T old) { return value < old ? value : old; });
}

template <nibble::cuda_host::AtomicInteger T>
inline T atomicOr(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_or(address, value, __ATOMIC_ACQ_REL);
}

template <nibble::cuda_host::AtomicInteger T>
inline T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  return expected;
}

template <class T>
requires nibble::cuda_host::AtomicInteger<T> || std::is_same_v<T, float>
inline T atomicExch(T* address, std::type_identity_t<T> value) {
  return nibble::cuda_host::atomic_change(address, [value](T) { return value; });
}

inline void __threadfence() { nibble::cuda_host::memory_fence(); }
inline void __threadfence_block() { nibble::cuda_host::memory_fence(); }
