// SPDX-License-Identifier: Apache-2.0
// Double quantisation's mean (backend/scales.h).
#include "backend/scales.h"
#include "cuda/device.h"
#include "cuda/optim/launch.h"

namespace nibble::cuda {
namespace {

constexpr int kThreadsOfAdd = 256;

// One thread block: the scales of a tensor are few.
__global__ void __launch_bounds__(backend::kMeanSums)
    mean_kernel(const float* x, std::int64_t n, float* mean) {
  NIBBLE_SHARED(double, sums, backend::kMeanSums);
  sums[threadIdx.x] = backend::mean_sum(x, n, threadIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) {
    *mean = backend::mean_of(sums, n);
  }
}

__global__ void __launch_bounds__(kThreadsOfAdd)
    add_kernel(float* x, std::int64_t n, float sign, const float* value) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreadsOfAdd + threadIdx.x;
  if (i < n) {
    x[i] += sign * *value;
  }
}

cudaError_t launch_signed_add(float* x, std::int64_t n, float sign, const float* value,
                              cudaStream_t stream) {
  return NIBBLE_LAUNCH(add_kernel, dim3(static_cast<unsigned>(math::block_count(n, kThreadsOfAdd))),
                       dim3(kThreadsOfAdd), 0, stream, x, n, sign, value);
}

}  // namespace

cudaError_t launch_subtract_mean(float* x, std::int64_t n, float* mean, cudaStream_t stream) {
  const cudaError_t error =
      NIBBLE_LAUNCH(mean_kernel, dim3(1), dim3(backend::kMeanSums), 0, stream, x, n, mean);
  return error != cudaSuccess ? error : launch_signed_add(x, n, -1.0F, mean, stream);
}

cudaError_t launch_add(float* x, std::int64_t n, const float* value, cudaStream_t stream) {
  return launch_signed_add(x, n, 1.0F, value, stream);
}

}  // namespace nibble::cuda
