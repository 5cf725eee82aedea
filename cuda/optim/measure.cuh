// SPDX-License-Identifier: Apache-2.0
// What must be known of a whole tensor before its step: the sums of squares behind a trust ratio,
// and the maxima of rows and columns behind rank-1 scales. The step is computed and not written.
#pragma once

#include "cuda/optim/step.cuh"

namespace nibble::cuda {

// Floats that are >= 0 order as their bits do.
__device__ inline void raise(float* maximum, float value) {
  atomicMax(reinterpret_cast<unsigned int*>(maximum), __float_as_uint(value));
}

// Squares of a chunk's values, block by block, by the tree of backend.h: sixteen neighbouring
// threads a block. values: kChunk floats that all threads have written.
__device__ inline void sum_blocks(const float* values, const Tensor& tensor, Chunk chunk,
                                  double* out) {
  const auto block = static_cast<int>(tensor.task.block);
  const int lane = static_cast<int>(threadIdx.x) % kSums;
  const std::int64_t first = std::int64_t{chunk.index} * kChunk;
  for (int b = static_cast<int>(threadIdx.x) / kSums; b < (kChunk / block + 31) / 32 * 32;
       b += kThreads / kSums) {
    double sum = 0.0;
    for (int e = lane; b < kChunk / block && e < block && first + b * block + e < tensor.count;
         e += kSums) {
      sum += finite_square(values[b * block + e]);
    }
    sum = combine_accumulators(sum);
    if (lane == 0 && b < kChunk / block && first + b * block < tensor.count) {
      out[first / block + b] = sum;
    }
  }
}

template <class Rule, int kState>
__device__ void raise_rank1(const backend::StepTask& task, Lane at,
                            const float (&states)[Rule::kStates][kLane]) {
  if constexpr (kState < Rule::kStates) {
    const backend::Rank1Scales& by = task.state[kState].rank1;
    if (by.row != nullptr) {
      NIBBLE_UNROLL
      for (int i = 0; i < kLane; ++i) {
        if (i < at.valid) {
          const float value = math::saturated(states[kState][i]);
          raise(by.next_row + (at.begin + i) / task.columns, value);
          raise(by.next_column + (at.begin + i) % task.columns, value);
        }
      }
    }
    raise_rank1<Rule, kState + 1>(task, at, states);
  }
}

template <class Rule>
__global__ void __launch_bounds__(kThreads, 1) measure_kernel(StepArgs args) {
  NIBBLE_SHARED(float, scratch, kThreads / 32);
  NIBBLE_SHARED(float, values, kChunk);
  const Chunk chunk = args.chunks[blockIdx.x];
  const Tensor& tensor = args.tensors[chunk.tensor];
  const backend::StepTask& task = tensor.task;
  if (is_left_out(args, tensor)) {
    return;
  }
  const Lane at = lane_of(chunk.index, tensor.count);
  StepLane<Rule, AnyFormat> lane;
  lane.load(task, at, random_of(args, tensor), scratch);
  float values_of_terms[Rule::kTerms];
  backend::UpdateTerms terms = live_terms<Rule>(args, tensor, values_of_terms);
  if constexpr (Rule::kKind != math::RuleKind::kTrustRatio) {
    lane.update(terms);
  } else {
    float before[kLane];
    NIBBLE_UNROLL
    for (int i = 0; i < kLane; ++i) {
      before[i] = lane.weights[i];
      values[threadIdx.x * kLane + i] = before[i];
    }
    __syncthreads();
    sum_blocks(values, tensor, chunk, tensor.block_squares);
    __syncthreads();
    terms.form = backend::Form::kDirection;
    lane.update(terms);
    NIBBLE_UNROLL
    for (int i = 0; i < kLane; ++i) {
      values[threadIdx.x * kLane + i] =
          backend::decayed_direction(terms, lane.grads[i], lane.weights[i], before[i]);
    }
    __syncthreads();
    sum_blocks(values, tensor, chunk,
               tensor.block_squares + math::block_count(tensor.count, task.block));
  }
  raise_rank1<Rule, 0>(task, at, lane.states);
}

}  // namespace nibble::cuda
