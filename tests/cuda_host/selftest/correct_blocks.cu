// SPDX-License-Identifier: Apache-2.0
// The kernels of correct.h in which the threads of a block work together.
#include "cuda/device.h"
#include "cuda_host/selftest/correct.h"

namespace nibble::cuda_host::selftest {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;
constexpr int kBlock = 256;

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

}  // namespace

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

}  // namespace nibble::cuda_host::selftest
