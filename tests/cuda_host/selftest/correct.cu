// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda_host/selftest/correct.h"

namespace nibble::cuda_host::selftest {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;

template <class T, Shuffle KIND>
__global__ void shuffle(T* out, const T* in, unsigned amount, int width) {
  T value = in[threadIdx.x];
  if constexpr (KIND == Shuffle::kIndex) {
    value = __shfl_sync(kAll, value, static_cast<int>(amount), width);
  } else if constexpr (KIND == Shuffle::kUp) {
    value = __shfl_up_sync(kAll, value, amount, width);
  } else if constexpr (KIND == Shuffle::kDown) {
    value = __shfl_down_sync(kAll, value, amount, width);
  } else {
    value = __shfl_xor_sync(kAll, value, static_cast<int>(amount), width);
  }
  out[threadIdx.x] = value;
}

__global__ void votes(Votes* out, const unsigned* in) {
  const unsigned value = in[threadIdx.x];
  const int odd = value % 2 != 0 ? 1 : 0;
  Votes mine;
  mine.ballot = __ballot_sync(kAll, odd);
  mine.any = static_cast<unsigned>(__any_sync(kAll, odd));
  mine.all = static_cast<unsigned>(__all_sync(kAll, odd));
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  mine.sum = __reduce_add_sync(kAll, value);
  mine.least = __reduce_min_sync(kAll, value);
  mine.greatest = __reduce_max_sync(kAll, value);
#else
  mine.sum = mine.least = mine.greatest = 0;
#endif
  mine.block_count = __syncthreads_count(odd);
  mine.block_and = __syncthreads_and(odd) != 0 ? 1 : 0;
  mine.block_or = __syncthreads_or(odd) != 0 ? 1 : 0;
  out[threadIdx.x] = mine;
}

__global__ void indices(std::uint64_t* out) {
  const std::uint64_t block =
      blockIdx.x + std::uint64_t{gridDim.x} * (blockIdx.y + std::uint64_t{gridDim.y} * blockIdx.z);
  const std::uint64_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const std::uint64_t threads = std::uint64_t{blockDim.x} * blockDim.y * blockDim.z;
  out[block * threads + thread] = block * 1000000 + thread;
}

__global__ void atomics(Atomics* cells) {
  const unsigned id = blockIdx.x * blockDim.x + threadIdx.x;
  const int number = static_cast<int>(id) - 100;
  const unsigned long long big = (1ULL << 40) + id;
  atomicAdd(&cells->sum_int, number);
  atomicMax(&cells->max_int, number);
  atomicMin(&cells->min_int, number);
  atomicAdd(&cells->sum_unsigned, id);
  atomicMax(&cells->max_unsigned, id);
  atomicMin(&cells->min_unsigned, id);
  atomicOr(&cells->bits, 1U << id % 32);
  atomicExch(&cells->exchanged, 7U);
  atomicAdd(&cells->sum_long, big);
  atomicMax(&cells->max_long, big);
  atomicMin(&cells->min_long, big);
  atomicAdd(&cells->sum_float, 1.0F);
  atomicAdd(&cells->sum_double, 0.5);
  unsigned expected = 0;  // adds 2, by hand
  for (unsigned seen = atomicCAS(&cells->ticket, expected, expected + 2); seen != expected;
       seen = atomicCAS(&cells->ticket, expected, expected + 2)) {
    expected = seen;
  }
}

__global__ void last_writer(float* last, const float* in) {
  __syncthreads();
  atomicExch(last, in[threadIdx.x]);
}

__global__ void fused(float* cell, float factor) { *cell = __fmaf_rn(*cell, factor, 1.0F); }

__global__ void big_shared(unsigned* out, unsigned count) {
  NIBBLE_SHARED_DYNAMIC(unsigned, words);
  words[count - 1 - threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = words[count - 1 - threadIdx.x];
}

__global__ void scalar(std::uint32_t* out, const float* in) {
  const float a = in[0];
  const float b = in[1];
  out[0] = __float_as_uint(__fmaf_rn(a, b, 1.0F));
  out[1] = __float_as_uint(__fdiv_rn(a, b));
  out[2] = __float_as_uint(__fsqrt_rn(a));
  out[3] = __float_as_uint(__fmul_rn(a, b));
  out[4] = __float_as_uint(__fadd_rn(a, b));
  out[5] = static_cast<std::uint32_t>(__popc(0xF0F0U));
  out[6] = static_cast<std::uint32_t>(__clz(0x00010000));
  out[7] = static_cast<std::uint32_t>(__ffs(0x00010000));
  out[8] = __umulhi(0x80000000U, 6U);
  out[9] = __float_as_uint(__uint_as_float(0x40490FDBU));
  out[10] = static_cast<std::uint32_t>(warpSize);
  __stcs(out + 11, static_cast<std::uint32_t>(__float2int_rn(2.5F)) + __ldcs(out + 5));
}

}  // namespace

template <class T>
cudaError_t launch_shuffle(Shuffle kind, T* out, const T* in, unsigned amount, int width,
                           unsigned threads, cudaStream_t stream) {
  switch (kind) {
    case Shuffle::kIndex:
      return NIBBLE_LAUNCH((shuffle<T, Shuffle::kIndex>), 1, threads, 0, stream, out, in, amount,
                           width);
    case Shuffle::kUp:
      return NIBBLE_LAUNCH((shuffle<T, Shuffle::kUp>), 1, threads, 0, stream, out, in, amount,
                           width);
    case Shuffle::kDown:
      return NIBBLE_LAUNCH((shuffle<T, Shuffle::kDown>), 1, threads, 0, stream, out, in, amount,
                           width);
    default:
      return NIBBLE_LAUNCH((shuffle<T, Shuffle::kXor>), 1, threads, 0, stream, out, in, amount,
                           width);
  }
}

#define NIBBLE_SHUFFLE_TYPE(T)                                                           \
  template cudaError_t launch_shuffle<T>(Shuffle, T*, const T*, unsigned, int, unsigned, \
                                         cudaStream_t);
NIBBLE_SHUFFLE_TYPE(int)
NIBBLE_SHUFFLE_TYPE(unsigned)
NIBBLE_SHUFFLE_TYPE(float)
NIBBLE_SHUFFLE_TYPE(double)
NIBBLE_SHUFFLE_TYPE(unsigned long long)
#undef NIBBLE_SHUFFLE_TYPE

cudaError_t launch_votes(Votes* out, const unsigned* in, unsigned threads, cudaStream_t stream) {
  return NIBBLE_LAUNCH(votes, 1, threads, 0, stream, out, in);
}

cudaError_t launch_indices(std::uint64_t* out, dim3 grid, dim3 block, cudaStream_t stream) {
  return NIBBLE_LAUNCH(indices, grid, block, 0, stream, out);
}

cudaError_t launch_atomics(Atomics* cells, cudaStream_t stream) {
  return NIBBLE_LAUNCH(atomics, 8, 64, 0, stream, cells);
}

cudaError_t launch_last_writer(float* last, const float* in, cudaStream_t stream) {
  return NIBBLE_LAUNCH(last_writer, 1, 64, 0, stream, last, in);
}

cudaError_t launch_fused(float* cell, double factor, cudaStream_t stream) {
  return NIBBLE_LAUNCH(fused, 1, 1, 0, stream, cell, static_cast<float>(factor));
}

cudaError_t launch_big_shared(unsigned* out, std::size_t shared_bytes, int limit,
                              cudaStream_t stream) {
  if (limit != 0) {
    const cudaError_t status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(big_shared),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
    if (status != cudaSuccess) {
      return status;
    }
  }
  const auto words = static_cast<unsigned>(shared_bytes / sizeof(unsigned));
  return NIBBLE_LAUNCH(big_shared, 1, 32, shared_bytes, stream, out, words);
}

cudaError_t launch_scalar(std::uint32_t* out, const float* in, cudaStream_t stream) {
  return NIBBLE_LAUNCH(scalar, 1, 1, 0, stream, out, in);
}

}  // namespace nibble::cuda_host::selftest
