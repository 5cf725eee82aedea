// SPDX-License-Identifier: Apache-2.0
// Trust ratios from sums of blocks, and the exchange of rank-1 scales.
#include "cuda/optim/launch.h"
#include "cuda/optim/sums.cuh"

namespace nibble::cuda {
namespace {

// A thread block a tensor: blocks are added within their range, then ranges, as on the host.
__global__ void __launch_bounds__(kWide)
    trust_ratio_kernel(StepArgs args, const std::uint32_t* tensors) {
  Tensor& tensor = args.tensors[tensors[blockIdx.x]];
  if (is_left_out(args, tensor) || tensor.block_squares == nullptr) {
    return;
  }
  const std::int64_t blocks = math::block_count(tensor.count, tensor.task.block);
  const std::int64_t ranges = math::block_count(tensor.count, tensor.range);
  const std::int64_t each = tensor.range / tensor.task.block;
  for (std::int64_t i = threadIdx.x; i < 2 * ranges; i += kWide) {
    const std::int64_t first = i % ranges * each;
    const std::int64_t n = blocks - first < each ? blocks - first : each;
    tensor.range_squares[i] = sum_in_order(tensor.block_squares + i / ranges * blocks + first, n);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const double weights = sum_in_order(tensor.range_squares, ranges);
    const double updates = sum_in_order(tensor.range_squares + ranges, ranges);
    const double ratio = weights > 0 && updates > 0 ? std::sqrt(weights) / std::sqrt(updates) : 1;
    const double* hyper = args.groups[tensor.group].hyper;
    tensor.task.keep =
        static_cast<float>(1.0 - hyper[math::kLearningRate] * ratio * hyper[math::kWeightDecay]);
    tensor.task.step_scale = static_cast<float>(ratio);
  }
}

// f(current, next, n) for the row and the column scales of each rank-1 state.
template <class F>
__device__ void for_each_scales(const Tensor& tensor, const F& f) {
  for (int s = 0; s < math::kMaxStates; ++s) {
    const backend::Rank1Scales& by = tensor.task.state[s].rank1;
    if (by.row != nullptr) {
      f(by.row, by.next_row, tensor.rows);
      f(by.column, by.next_column, tensor.task.columns);
    }
  }
}

__global__ void __launch_bounds__(kWide)
    clear_rank1_kernel(StepArgs args, const std::uint32_t* tensors) {
  for_each_scales(args.tensors[tensors[blockIdx.x]],
                  [&](const float*, float* next, std::int64_t n) {
                    for (std::int64_t i = threadIdx.x; i < n; i += kWide) {
                      next[i] = 0.0F;
                    }
                  });
}

__global__ void __launch_bounds__(kWide)
    finish_rank1_kernel(StepArgs args, const std::uint32_t* tensors) {
  const Tensor& tensor = args.tensors[tensors[blockIdx.x]];
  if (is_left_out(args, tensor)) {
    return;
  }
  for_each_scales(tensor, [&](const float* current, const float* next, std::int64_t n) {
    for (std::int64_t i = threadIdx.x; i < n; i += kWide) {
      const_cast<float*>(current)[i] = next[i];  // the view's are read-only for the kernels
    }
  });
}

}  // namespace

cudaError_t launch_clear_rank1(const StepArgs& args, const std::uint32_t* tensors,
                               std::int64_t count, cudaStream_t stream) {
  return NIBBLE_LAUNCH(clear_rank1_kernel, dim3(static_cast<unsigned>(count)), dim3(kWide), 0,
                       stream, args, tensors);
}

cudaError_t launch_trust_ratios(const StepArgs& args, const std::uint32_t* tensors,
                                std::int64_t count, cudaStream_t stream) {
  return NIBBLE_LAUNCH(trust_ratio_kernel, dim3(static_cast<unsigned>(count)), dim3(kWide), 0,
                       stream, args, tensors);
}

cudaError_t launch_finish_rank1(const StepArgs& args, const std::uint32_t* tensors,
                                std::int64_t count, cudaStream_t stream) {
  return NIBBLE_LAUNCH(finish_rank1_kernel, dim3(static_cast<unsigned>(count)), dim3(kWide), 0,
                       stream, args, tensors);
}

}  // namespace nibble::cuda
