// SPDX-License-Identifier: Apache-2.0
// The only header that a kernel source includes besides src/math. nvcc gets CUDA itself; a host
// compiler gets tests/cuda_host, on which the same source runs on the CPU
// (tests/cuda_host/README.md has the rules that make this possible). All PTX of the project is in
// this file.
//
//   NIBBLE_SHARED(T, name, N);           a static shared array, `__shared__ T name[N]`
//   NIBBLE_SHARED_DYNAMIC(T, name);      T* to the launch's dynamic shared memory
//   NIBBLE_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)  -> cudaError_t
//                                        a template kernel in parentheses: (kernel<A, B>)
//   NIBBLE_UNROLL                        before a loop
#pragma once

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <type_traits>

#define NIBBLE_SHARED(T, name, N) __shared__ T name[N]
#define NIBBLE_SHARED_DYNAMIC(T, name)                                   \
  extern __shared__ __align__(16) unsigned char nibble_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(nibble_dynamic_shared)
#define NIBBLE_UNROLL _Pragma("unroll")
#define NIBBLE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::nibble::cuda::launch((kernel), (grid), (block), (shared_bytes),   \
                         (stream)__VA_OPT__(, ) __VA_ARGS__)

namespace nibble::cuda {

// Copies 16 bytes from global to shared memory; both addresses are multiples of 16. The copy is
// done when cp_async_wait<N>() returns, N being the number of later groups that may still be on
// their way. Before sm_80 it is an ordinary copy.
__device__ __forceinline__ void cp_async16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(global)
               : "memory");
#else
  *static_cast<int4*>(shared) = *static_cast<const int4*>(global);
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

template <int N>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

// For data that is used once: it should not push what is used again out of the cache.
template <class T>
__device__ __forceinline__ T load_streaming(const T* address) {
  return __ldcs(address);
}

template <class T>
__device__ __forceinline__ void store_streaming(T* address, T value) {
  __stcs(address, value);
}

// The arguments are converted to the types of the kernel's parameters, as in a call.
template <class... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, std::type_identity_t<Parameters>... arguments) {
  void* addresses[] = {static_cast<void*>(&arguments)..., nullptr};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, addresses,
                          shared_bytes, stream);
}

}  // namespace nibble::cuda

#else

#include "cuda_host/device.h"

#endif
