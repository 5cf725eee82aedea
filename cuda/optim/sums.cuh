// SPDX-License-Identifier: Apache-2.0
// Sums whose tree is part of their definition (backend.h), and what decides whether a tensor takes
// part in a step.
#pragma once

#include "cuda/device.h"
#include "cuda/optim/plan.h"

namespace nibble::cuda {

inline constexpr int kSums = 16;  // accumulators, each of one of neighbouring threads
inline constexpr int kSumThreads = 128;
inline constexpr int kWide = 256;  // threads of a block over a plain array

// Whether there is nothing to do for a tensor in this step.
__device__ inline bool is_left_out(const StepArgs& args, const Tensor& tensor) {
  return args.control->taken == 0 || tensor.task.grads.data == nullptr;
}

__device__ inline float element_of(backend::Source x, std::int64_t i) {
  return x.is_bf16 ? math::bf16_to_float(static_cast<const math::bf16*>(x.data)[i])
                   : static_cast<const float*>(x.data)[i];
}
__device__ inline bool is_finite(float x) { return math::is_finite_bits(__float_as_uint(x)); }

// What an element adds to a sum of squares.
__device__ inline double finite_square(float x) {
  const double value = is_finite(x) ? x : 0.0F;
  return value * value;
}

// The sum over the accumulators: neighbours are added, four times.
template <class T>
__device__ inline T combine_accumulators(T mine) {
  for (int d = 1; d < kSums; d *= 2) {
    mine += __shfl_xor_sync(0xffffffffU, mine, d);
  }
  return mine;
}

// The sum of value(0) .. value(n - 1) in their order, by a whole thread block: all of its threads
// fetch values into `staged` (shared, one a thread), the first adds them and has the result.
template <class Value>
__device__ inline double sum_in_order_by_block(double* staged, std::int64_t n, const Value& value) {
  const std::int64_t threads = blockDim.x;
  double total = 0.0;
  for (std::int64_t first = 0; first < n; first += threads) {
    const std::int64_t left = n - first;
    if (threadIdx.x < left) {
      staged[threadIdx.x] = value(first + threadIdx.x);
    }
    __syncthreads();
    for (int i = 0; threadIdx.x == 0 && i < threads && i < left; ++i) {
      total += staged[i];
    }
    __syncthreads();
  }
  return total;
}

// The sum of leaves (or blocks, or ranges) in their order, by one thread.
__device__ inline double sum_in_order(const double* leaves, std::int64_t n) {
  double total = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    total += leaves[i];
  }
  return total;
}

}  // namespace nibble::cuda
