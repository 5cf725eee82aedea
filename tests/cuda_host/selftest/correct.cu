// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda_host/selftest/correct.h"

namespace nibble::cuda_host::selftest {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;
constexpr int kBlock = 256;

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

__device__ __forceinline__ float warp_max(float value) {
  NIBBLE_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAll, value, distance));
  }
  return value;
}

// The maximum over the block, for all of its threads.
template <int THREADS>
__device__ __forceinline__ float block_max(float value) {
  NIBBLE_SHARED(float, of_warp, THREADS / 32);
  value = warp_max(value);
  __syncthreads();  // the array may still be read from the last time
  if (threadIdx.x % 32 == 0) {
    of_warp[threadIdx.x / 32] = value;
  }
  __syncthreads();
  return warp_max(of_warp[threadIdx.x % (THREADS / 32)]);
}

template <int PER_THREAD>
__global__ void __launch_bounds__(kBlock / PER_THREAD)
    quantize(const float* __restrict__ in, std::int8_t* __restrict__ codes,
             float* __restrict__ scales, std::int64_t count) {
  const std::int64_t first = std::int64_t{blockIdx.x} * kBlock + threadIdx.x * PER_THREAD;
  float values[PER_THREAD];
  float greatest = 0;
  NIBBLE_UNROLL
  for (int i = 0; i < PER_THREAD; ++i) {
    values[i] = first + i < count ? cuda::load_streaming(in + first + i) : 0.0F;
    greatest = fmaxf(greatest, fabsf(values[i]));
  }
  greatest = block_max<kBlock / PER_THREAD>(greatest);
  const float inverse = greatest > 0 ? __fdiv_rn(127.0F, greatest) : 0.0F;
  NIBBLE_UNROLL
  for (int i = 0; i < PER_THREAD; ++i) {
    if (first + i < count) {
      codes[first + i] = static_cast<std::int8_t>(__float2int_rn(__fmul_rn(values[i], inverse)));
    }
  }
  if (threadIdx.x == 0) {
    scales[blockIdx.x] = greatest;
  }
}

__global__ void dequantize(const std::int8_t* __restrict__ codes, const float* __restrict__ scales,
                           float* __restrict__ out, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) {
    const float scale = __fdiv_rn(scales[i / kBlock], 127.0F);
    cuda::store_streaming(out + i, __fmul_rn(static_cast<float>(codes[i]), scale));
  }
}

__global__ void reverse_tiles(const float* in, float* out, int tiles) {
  NIBBLE_SHARED_DYNAMIC(float, buffers);
  const unsigned tile = blockDim.x * 4;
  const auto fetch = [&](int index) {
    if (index < tiles) {
      const unsigned to = static_cast<unsigned>(index % 2) * tile + threadIdx.x * 4;
      cuda::cp_async16(buffers + to, in + static_cast<unsigned>(index) * tile + threadIdx.x * 4);
    }
    cuda::cp_async_commit();
  };
  fetch(0);
  for (int index = 0; index < tiles; ++index) {
    fetch(index + 1);
    cuda::cp_async_wait<1>();
    __syncthreads();
    for (unsigned i = threadIdx.x; i < tile; i += blockDim.x) {
      out[static_cast<unsigned>(index) * tile + i] =
          2 * buffers[static_cast<unsigned>(index % 2) * tile + tile - 1 - i];
    }
    __syncthreads();
  }
}

__device__ __forceinline__ float block_sum(float value) {
  NIBBLE_SHARED(float, terms, kBlock);
  __syncthreads();
  terms[threadIdx.x] = value;
  for (unsigned half = kBlock / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      terms[threadIdx.x] = __fadd_rn(terms[threadIdx.x], terms[threadIdx.x + half]);
    }
  }
  __syncthreads();
  return terms[0];
}

__global__ void sum_all(const float* in, std::int64_t count, float* partial, unsigned* ticket,
                        float* sum) {
  float mine = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kBlock + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kBlock) {
    mine = __fadd_rn(mine, in[i]);
  }
  mine = block_sum(mine);
  NIBBLE_SHARED(bool, is_last, 1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = mine;
    __threadfence();
    is_last[0] = atomicAdd(ticket, 1U) == gridDim.x - 1;
  }
  __syncthreads();
  if (is_last[0]) {
    __threadfence();
    float rest = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += kBlock) {
      rest = __fadd_rn(rest, partial[i]);
    }
    rest = block_sum(rest);
    if (threadIdx.x == 0) {
      *sum = rest;
      *ticket = 0;
    }
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

cudaError_t launch_quantize(const float* in, std::int8_t* codes, float* scales, std::int64_t count,
                            int per_thread, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
  return per_thread == 8
             ? NIBBLE_LAUNCH(quantize<8>, blocks, kBlock / 8, 0, stream, in, codes, scales, count)
             : NIBBLE_LAUNCH(quantize<1>, blocks, kBlock, 0, stream, in, codes, scales, count);
}

cudaError_t launch_dequantize(const std::int8_t* codes, const float* scales, float* out,
                              std::int64_t count, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
  return NIBBLE_LAUNCH(dequantize, blocks, kBlock, 0, stream, codes, scales, out, count);
}

cudaError_t launch_reverse_tiles(const float* in, float* out, int count, cudaStream_t stream) {
  return NIBBLE_LAUNCH(reverse_tiles, 1, 64, 2 * 256 * sizeof(float), stream, in, out, count / 256);
}

cudaError_t launch_sum(const float* in, std::int64_t count, float* partial, unsigned blocks,
                       unsigned* ticket, float* sum, cudaStream_t stream) {
  return NIBBLE_LAUNCH(sum_all, blocks, kBlock, 0, stream, in, count, partial, ticket, sum);
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
