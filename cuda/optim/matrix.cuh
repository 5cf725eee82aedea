// SPDX-License-Identifier: Apache-2.0
// What the kernels of matrix rules share.
#pragma once

#include "cuda/optim/launch.h"
#include "cuda/optim/matrix.h"
#include "cuda/optim/sums.cuh"

namespace nibble::cuda {

__device__ inline bool is_left_out(const StepArgs& args, std::uint32_t tensor) {
  return is_left_out(args, args.tensors[tensor]);
}

__device__ inline std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
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
