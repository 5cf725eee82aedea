// SPDX-License-Identifier: Apache-2.0
// The host's half of cuda/device.h: CUDA's words for kernel sources, as C++ that runs on the CPU.
#pragma once

#ifdef __CUDACC__
#error "tests/cuda_host/device.h is for host compilers; include cuda/device.h"
#endif

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_host/execution.h"

#undef __global__
#undef __device__
#undef __host__
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#undef __constant__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ NIBBLE_SHARED_must_be_used_instead
#define __constant__ pass_a_struct_by_value_instead

#include "cuda_host/device_atomics.h"
#include "cuda_host/device_math.h"
#include "cuda_host/device_warp.h"

#define NIBBLE_UNROLL
#define NIBBLE_SHARED(T, name, N)                                                              \
  static constinit ::nibble::cuda_host::SharedArray name##_array{#name, {__FILE__, __LINE__}}; \
  T(&name)                                                                                     \
  [N] = *static_cast<T(*)[N]>(                                                                 \
      ::nibble::cuda_host::shared_array(name##_array, sizeof(T) * (N), alignof(T)))
#define NIBBLE_SHARED_DYNAMIC(T, name) \
  T* name = static_cast<T*>(::nibble::cuda_host::dynamic_shared({__FILE__, __LINE__}))
#define NIBBLE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                              \
  ::nibble::cuda::launch(#kernel, {__FILE__, __LINE__}, (kernel), (grid), (block), (shared_bytes), \
                         (stream)__VA_OPT__(, ) __VA_ARGS__)

#define threadIdx (::nibble::cuda_host::thread_index())
#define blockIdx (::nibble::cuda_host::block_place().index)
#define blockDim (::nibble::cuda_host::block_place().size)
#define gridDim (::nibble::cuda_host::block_place().grid)

namespace nibble::cuda_host {

inline const uint3& thread_index() { return current->index; }
inline const BlockPlace& block_place() { return *current->block; }

}  // namespace nibble::cuda_host

inline constexpr int warpSize = static_cast<int>(nibble::cuda_host::kWarpSize);

inline void __syncthreads(NIBBLE_CUDA_HOST_SITE) {
  nibble::cuda_host::wait_at_barrier(nibble::cuda_host::Barrier::kPlain, 0, site);
}

inline int __syncthreads_count(int predicate, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::wait_at_barrier(nibble::cuda_host::Barrier::kCount, predicate, site);
}

inline int __syncthreads_and(int predicate, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::wait_at_barrier(nibble::cuda_host::Barrier::kAnd, predicate, site);
}

inline int __syncthreads_or(int predicate, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::wait_at_barrier(nibble::cuda_host::Barrier::kOr, predicate, site);
}

namespace nibble::cuda {

// The bytes arrive only when they are waited for; until then the destination holds 0xFF. All
// accesses are made here, in code that the sanitizers watch, so that they name the kernel's line.
inline void cp_async16(void* shared, const void* global, NIBBLE_CUDA_HOST_SITE) {
  cuda_host::begin_async_copy(shared, global, site);
  uint4 bytes;
  std::memcpy(&bytes, global, sizeof bytes);
  asm volatile("" : : "r"(&bytes) : "memory");  // the read must be seen, and has no use
  std::memset(shared, 0xFF, sizeof bytes);
}

inline void cp_async_commit() { cuda_host::commit_async_copies(); }

template <int N>
inline void cp_async_wait() {
  static_assert(N >= 0);
  for (cuda_host::AsyncCopy copy; cuda_host::take_async_copy(N, copy);) {
    std::memcpy(copy.shared, copy.global, 16);
  }
}

// A GPU takes no word that is not aligned.
template <class T>
inline T load_streaming(const T* address, NIBBLE_CUDA_HOST_SITE) {
  cuda_host::check_aligned(address, sizeof(T), site);
  return *address;
}

template <class T>
inline void store_streaming(T* address, T value, NIBBLE_CUDA_HOST_SITE) {
  cuda_host::check_aligned(address, sizeof(T), site);
  *address = value;
}

// The arguments are converted to the types of the kernel's parameters, as in a call.
template <class... Parameters>
cudaError_t launch(const char* name, cuda_host::Site site, void (*kernel)(Parameters...), dim3 grid,
                   dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   std::type_identity_t<Parameters>... arguments) {
  std::vector<const void*> pointers;
  const auto keep_pointer = [&pointers](const auto& argument) {
    using T = std::remove_cvref_t<decltype(argument)>;
    if constexpr (std::is_pointer_v<T>) {
      pointers.push_back(argument);
    }
  };
  (keep_pointer(arguments), ...);
  auto body = [kernel, values = std::tuple<Parameters...>(arguments...)] {
    std::apply(kernel, values);
  };
  return cuda_host::launch_kernel({name, site, reinterpret_cast<const void*>(kernel), grid, block,
                                   shared_bytes, std::move(body), std::move(pointers)},
                                  stream);
}

}  // namespace nibble::cuda
