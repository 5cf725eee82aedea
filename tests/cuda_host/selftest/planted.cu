// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda_host/selftest/planted.h"

namespace nibble::cuda_host::selftest {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kAll = 0xFFFFFFFFU;

__global__ void missing_barrier(float* out, const float* in) {
  NIBBLE_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[(threadIdx.x + 1) % kThreads];
}

__global__ void divergent_barrier(float* out, const float* in) {
  if (threadIdx.x < 100) {
    __syncthreads();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void two_barriers(float* out, const float* in) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
  } else {
    __syncthreads();
    out[threadIdx.x] = -in[threadIdx.x];
  }
}

__global__ void shared_overrun(float* out, const float* in) {
  NIBBLE_SHARED(float, tile, kThreads);
  tile[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x == 0 ? 1 : threadIdx.x];
}

__global__ void global_overread(float* out, const float* in) {
  out[threadIdx.x] = in[threadIdx.x + 1];
}

__global__ void global_overwrite(float* out, const float* in) {
  out[threadIdx.x + 1] = in[threadIdx.x];
}

__global__ void unwritten_shared(float* out, const float* in) {
  NIBBLE_SHARED(float, tile, kThreads);
  if (threadIdx.x < kThreads - 1) {
    tile[threadIdx.x] = in[threadIdx.x];
  }
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

// Lanes 8 to 15 read lanes 16 to 23, which are not in the mask.
__global__ void shuffle_from_inactive(float* out, const float* in) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    value += __shfl_down_sync(0x0000FFFFU, value, 8);
  }
  out[threadIdx.x] = value;
}

__global__ void shuffle_against_barrier(float* out, const float* in) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    value = __shfl_xor_sync(kAll, value, 1);
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = value;
}

__global__ void shuffle_masks_differ(float* out, const float* in) {
  const unsigned mask = threadIdx.x % 32 < 16 ? kAll : 0xFFFF0001U;
  out[threadIdx.x] = __shfl_sync(mask, in[threadIdx.x], 0);
}

__global__ void shuffle_outside_own_mask(float* out, const float* in) {
  out[threadIdx.x] = __shfl_sync(0x0000FFFFU, in[threadIdx.x], 0);
}

__global__ void two_shuffles(float* out, const float* in) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 2 == 0) {
    value = __shfl_xor_sync(kAll, value, 1);
  } else {
    value = __shfl_xor_sync(kAll, value, 1);
  }
  out[threadIdx.x] = value;
}

__global__ void active_mask(float* out, const float* in) {
  out[threadIdx.x] = __shfl_sync(__activemask(), in[threadIdx.x], 0);
}

// (The value passes through a barrier, or threads would run one after the other on the host.)
__global__ void lost_update(float* out, const float* in) {
  const float before = out[0];
  __syncwarp();
  out[0] = before + in[threadIdx.x];
}

__global__ void lost_update_across_blocks(float* out, const float* in) {
  if (threadIdx.x == 0) {
    out[0] = out[0] * 0.5F + in[blockIdx.x];
  }
}

__global__ void reads_other_block(float* out, const float* in) {
  const unsigned neighbour = (blockIdx.x + 1) % gridDim.x;
  const float value = out[neighbour * blockDim.x + threadIdx.x];
  out[blockIdx.x * blockDim.x + threadIdx.x] = in[threadIdx.x] + value;
}

__global__ void no_async_wait(float* out, const float* in) {
  NIBBLE_SHARED(float4, tile, kThreads / 4);
  if (threadIdx.x < kThreads / 4) {
    cuda::cp_async16(&tile[threadIdx.x], in + std::size_t{4} * threadIdx.x);
  }
  cuda::cp_async_commit();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x / 4].x;
}

// A thread waits for its own copies only.
__global__ void no_barrier_after_async_wait(float* out, const float* in) {
  NIBBLE_SHARED(float4, tile, kThreads / 4);
  if (threadIdx.x < kThreads / 4) {
    cuda::cp_async16(&tile[threadIdx.x], in + std::size_t{4} * threadIdx.x);
  }
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  out[threadIdx.x] = tile[(kThreads - 1 - threadIdx.x) / 4].x;
}

// The barrier that separates reading from the next round's writing is missing.
__global__ void shared_reused(float* out, const float* in) {
  NIBBLE_SHARED(float, tile, kThreads);
  float sum = 0;
  for (unsigned round = 0; round < 4; ++round) {
    tile[threadIdx.x] = in[(threadIdx.x + round) % kThreads];
    __syncthreads();
    sum += tile[kThreads - 1 - threadIdx.x];
  }
  out[threadIdx.x] = sum;
}

// 40 KiB are static; the launch asks for 16 KiB more.
__global__ void too_much_shared(float* out, const float* in) {
  NIBBLE_SHARED(float, tile, 10240);
  NIBBLE_SHARED_DYNAMIC(float, more);
  tile[threadIdx.x] = in[threadIdx.x];
  more[threadIdx.x] = tile[threadIdx.x];
  out[threadIdx.x] = more[threadIdx.x];
}

__global__ void copy(float* out, const float* in) {
  if (threadIdx.x < kThreads) {
    out[threadIdx.x] = in[threadIdx.x];
  }
}

using Kernel = void (*)(float*, const float*);

Kernel find(Planted which) {
  constexpr Kernel kKernels[] = {
      missing_barrier,
      divergent_barrier,
      two_barriers,
      shared_overrun,
      global_overread,
      global_overwrite,
      unwritten_shared,
      shuffle_from_inactive,
      shuffle_against_barrier,
      shuffle_masks_differ,
      shuffle_outside_own_mask,
      two_shuffles,
      active_mask,
      lost_update,
      lost_update_across_blocks,
      reads_other_block,
      no_async_wait,
      no_barrier_after_async_wait,
      shared_reused,
      too_much_shared,
  };
  return kKernels[static_cast<unsigned>(which)];
}

}  // namespace

cudaError_t launch_planted(Planted which, float* out, const float* in, cudaStream_t stream) {
  unsigned blocks = 1;
  unsigned threads = kThreads;
  if (which == Planted::kLostUpdateAcrossBlocks || which == Planted::kReadsOtherBlock) {
    blocks = 4;
    threads = 64;
  }
  const std::size_t shared_bytes = which == Planted::kTooMuchShared ? 16384 : 0;
  const Kernel planted = find(which);
  return NIBBLE_LAUNCH(planted, blocks, threads, shared_bytes, stream, out, in);
}

cudaError_t launch_copy(float* out, const float* in, unsigned threads, cudaStream_t stream) {
  return NIBBLE_LAUNCH(copy, 1, threads, 0, stream, out, in);
}

}  // namespace nibble::cuda_host::selftest
