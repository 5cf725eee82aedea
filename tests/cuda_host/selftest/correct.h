// SPDX-License-Identifier: Apache-2.0
// Correct kernels, which use everything that the stand-in offers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda_host::selftest {

enum class Shuffle { kIndex, kUp, kDown, kXor };

// out[i] = what thread i of one block of `threads` gets from the shuffle of `in` with an argument
// of `amount` and a section of `width`.
template <class T>
cudaError_t launch_shuffle(Shuffle kind, T* out, const T* in, unsigned amount, int width,
                           unsigned threads, cudaStream_t stream);

// What every thread of one block got from the warp's and the block's votes over in[i] % 2.
struct Votes {
  unsigned ballot, any, all, sum, least, greatest;  // sum, least and greatest of in[i]
  int block_count, block_and, block_or;
};
cudaError_t launch_votes(Votes* out, const unsigned* in, unsigned threads, cudaStream_t stream);

// out[linear id] = {threadIdx, blockIdx, blockDim, gridDim} folded into a number by fold_indices.
cudaError_t launch_indices(std::uint64_t* out, dim3 grid, dim3 block, cudaStream_t stream);

// The results of 8 blocks of 64 threads that all hit the same cells.
struct Atomics {
  int sum_int, max_int, min_int;
  unsigned sum_unsigned, max_unsigned, min_unsigned, bits, exchanged, ticket;
  unsigned long long sum_long, max_long, min_long;
  float sum_float;
  double sum_double;
};
cudaError_t launch_atomics(Atomics* cells, cudaStream_t stream);

// Block-wise int8: 256 elements a block, `per_thread` (1 or 8) of them a thread.
cudaError_t launch_quantize(const float* in, std::int8_t* codes, float* scales, std::int64_t count,
                            int per_thread, cudaStream_t stream);
cudaError_t launch_dequantize(const std::int8_t* codes, const float* scales, float* out,
                              std::int64_t count, cudaStream_t stream);

// out = 2 * in, each tile of 256 reversed, through two buffers of dynamic shared memory that
// cp.async fills. `count` is a multiple of 256.
cudaError_t launch_reverse_tiles(const float* in, float* out, int count, cudaStream_t stream);

// The sum of `in`, in one launch: the block that is done last adds up what the others left.
// `ticket` is zero before, and after.
cudaError_t launch_sum(const float* in, std::int64_t count, float* partial, unsigned blocks,
                       unsigned* ticket, float* sum, cudaStream_t stream);

// last = the element of `in` (64 of them) whose thread came last to an atomic operation.
cudaError_t launch_last_writer(float* last, const float* in, cudaStream_t stream);

// cell = cell * factor + 1, by one thread.
cudaError_t launch_fused(float* cell, double factor, cudaStream_t stream);

// Writes threadIdx.x to out[threadIdx.x] through `shared_bytes` of dynamic shared memory, after it
// raised the kernel's limit to `limit` (unless 0).
cudaError_t launch_big_shared(unsigned* out, std::size_t shared_bytes, int limit,
                              cudaStream_t stream);

// out[0] and out[1]: fma, division, root, product and sum; the integer functions; as bits.
cudaError_t launch_scalar(std::uint32_t* out, const float* in, cudaStream_t stream);

}  // namespace nibble::cuda_host::selftest
