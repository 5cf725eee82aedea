// SPDX-License-Identifier: Apache-2.0
// What the kernels of matrix rules share.
#pragma once

#include "cuda/device.h"
#include "cuda/optim/launch.h"
#include "cuda/optim/matrix.h"

namespace nibble::cuda {

inline constexpr int kWide = 256;

// Whether there is nothing to do in this step.
__device__ inline bool is_left_out(const StepArgs& args, std::uint32_t tensor) {
  return args.control->taken == 0 || args.tensors[tensor].task.grads.data == nullptr;
}

__device__ inline std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

// The sum of leaves in their order.
__device__ inline double sum_in_order(const double* leaves, std::int64_t n) {
  double total = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    total += leaves[i];
  }
  return total;
}

inline dim3 wide_grid(std::int64_t n) {
  return dim3(static_cast<unsigned>(math::block_count(n, kWide)));
}

}  // namespace nibble::cuda

#define NIBBLE_TRY(launch)              \
  do {                                  \
    const cudaError_t error = (launch); \
    if (error != cudaSuccess) {         \
      return error;                     \
    }                                   \
  } while (false)
