// SPDX-License-Identifier: Apache-2.0
// The step that also tells how well each state was kept (backend::StepStats, one a chunk). Slow.
#pragma once

#include "cuda/optim/step.cuh"

namespace nibble::cuda {

// The sum of one value of each thread in the order of threads; valid in thread 0. `shared` has
// kThreads numbers.
__device__ inline double block_sum(double mine, double* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  double sum = 0.0;
  for (int i = 0; threadIdx.x == 0 && i < kThreads; ++i) {
    sum += shared[i];
  }
  __syncthreads();
  return sum;
}
__device__ inline double block_largest(double mine, double* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  double largest = 0.0;
  for (int i = 0; threadIdx.x == 0 && i < kThreads; ++i) {
    largest = largest < shared[i] ? shared[i] : largest;
  }
  __syncthreads();
  return largest;
}

template <class Rule, int kState>
__device__ void add_stats(const backend::StepTask& task, Lane at, float* scratch, double* shared,
                          const float (&computed)[Rule::kStates][kLane], backend::StepStats& out) {
  if constexpr (kState < Rule::kStates) {
    float stored[kLane] = {};
    backend::StateView view = task.state[kState];
    if (view.data != nullptr) {
      view.rank1.row = view.rank1.next_row;  // the codes are of the next scales now
      view.rank1.column = view.rank1.next_column;
      StateIo<AnyFormat>::template load<Rule::kState[kState].is_signed>({view, task, at, scratch},
                                                                        stored);
    }
    double error_squares = 0.0;
    double squares = 0.0;
    double largest = 0.0;
    double lost = 0.0;
    for (int i = 0; i < at.valid; ++i) {
      const double value = computed[kState][i];
      const double error = double{stored[i]} - value;
      const double distance = error < 0 ? -error : error;
      error_squares += error * error;
      squares += value * value;
      largest = largest < distance ? distance : largest;
      lost += computed[kState][i] != 0.0F && stored[i] == 0.0F ? 1.0 : 0.0;
    }
    error_squares = block_sum(error_squares, shared);
    squares = block_sum(squares, shared);
    largest = block_largest(largest, shared);
    lost = block_sum(lost, shared);
    if (threadIdx.x == 0) {
      out.error_squares[kState] = error_squares;
      out.squares[kState] = squares;
      out.largest_error[kState] = largest;
      out.lost[kState] = static_cast<std::int64_t>(lost);
    }
    add_stats<Rule, kState + 1>(task, at, scratch, shared, computed, out);
  }
}

template <class Rule>
__global__ void __launch_bounds__(kThreads, 1)
    collect_kernel(StepArgs args, backend::StepStats* stats) {
  NIBBLE_SHARED(float, scratch, kThreads / 32);
  NIBBLE_SHARED(double, shared, kThreads);
  const Chunk chunk = args.chunks[blockIdx.x];
  const Tensor& tensor = args.tensors[chunk.tensor];
  if (is_left_out(args, tensor)) {
    return;
  }
  const Lane at = lane_of(chunk.index, tensor.count);
  StepLane<Rule, AnyFormat> lane;
  take_step(args, tensor, at, scratch, lane);
  __syncthreads();  // scales are one thread's, and read by all below
  add_stats<Rule, 0>(tensor.task, at, scratch, shared, lane.states, stats[blockIdx.x]);
}

}  // namespace nibble::cuda
