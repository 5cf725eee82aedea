// SPDX-License-Identifier: Apache-2.0
// The fused pass of a step: states and weights are read, updated and written once. One kernel for
// each rule and format of all its states, and one for any mixture of formats.
#pragma once

#include <type_traits>

#include "cuda/optim/launch.h"
#include "cuda/optim/state_io.cuh"
#include "cuda/optim/sums.cuh"
#include "cuda/optim/weight_io.cuh"

namespace nibble::cuda {

// What this step uses for a tensor: its group's terms, or its own, copied to `terms` (registers, as
// stores to global memory might change them there).
template <class Rule>
__device__ inline backend::UpdateTerms live_terms(const StepArgs& args, const Tensor& tensor,
                                                  float (&terms)[Rule::kTerms]) {
  const Group& group = args.groups[tensor.group];
  backend::UpdateTerms out = tensor.task;
  out.skip_nonfinite = args.control->skip_elements != 0;
  out.decay = group.decay;
  const float* from = tensor.is_derived ? tensor.own_terms : group.terms;
  NIBBLE_UNROLL
  for (int i = 0; i < Rule::kTerms; ++i) {
    terms[i] = from[i];
  }
  out.terms = terms;
  if (!tensor.is_derived) {
    out.grad_scale = args.control->grad_scale;
    out.finite_scale = args.control->finite_scale;
    // A trust ratio has set the tensor's own; its step_scale is 1 elsewhere.
    out.keep = tensor.block_squares != nullptr ? tensor.task.keep : group.keep;
  }
  return out;
}

template <class Rule, class Format>
struct StepLane {
  float weights[kLane] = {};
  float grads[kLane] = {};
  float states[Rule::kStates][kLane] = {};

  template <int kState>
  __device__ void load_states(const backend::StepTask& task, Lane at, float* scratch) {
    if constexpr (kState < Rule::kStates) {
      if (task.state[kState].data != nullptr) {
        StateIo<Format>::template load<Rule::kState[kState].is_signed>(
            {task.state[kState], task, at, scratch}, states[kState]);
      }
      load_states<kState + 1>(task, at, scratch);
    }
  }

  template <int kState>
  __device__ void store_states(const backend::StepTask& task, Lane at, float* scratch) {
    if constexpr (kState < Rule::kStates) {
      if (task.state[kState].data != nullptr) {
        StateIo<Format>::template store<Rule::kState[kState].is_signed>(
            {task.state[kState], task, at, scratch}, states[kState]);
      }
      store_states<kState + 1>(task, at, scratch);
    }
  }

  __device__ void load(const backend::StepTask& task, Lane at, math::RandomStream random,
                       float* scratch) {
    load_source(task.grads, at, grads);
    if (task.form != backend::Form::kDirection) {
      load_weights({task, at, random, scratch}, weights);
    }
    load_states<0>(task, at, scratch);
  }

  __device__ void update(const backend::UpdateTerms& terms) {
    NIBBLE_UNROLL
    for (int i = 0; i < kLane; ++i) {
      float state[Rule::kStates];
      NIBBLE_UNROLL
      for (int s = 0; s < Rule::kStates; ++s) {
        state[s] = states[s][i];
      }
      backend::update_element<Rule>(terms, grads[i], weights[i], state);
      NIBBLE_UNROLL
      for (int s = 0; s < Rule::kStates; ++s) {
        states[s][i] = state[s];
      }
    }
  }
};

__device__ inline math::RandomStream random_of(const StepArgs& args, const Tensor& tensor) {
  math::RandomStream random = tensor.task.random;
  random.step = static_cast<std::uint32_t>(args.control->step);
  return random;
}

// The whole step of a thread's elements; `lane` is left with the new values.
template <class Rule, class Format>
__device__ void take_step(const StepArgs& args, const Tensor& tensor, Lane at, float* scratch,
                          StepLane<Rule, Format>& lane) {
  const math::RandomStream random = random_of(args, tensor);
  lane.load(tensor.task, at, random, scratch);
  float terms[Rule::kTerms];
  lane.update(live_terms<Rule>(args, tensor, terms));
  store_weights({tensor.task, at, random, scratch}, lane.weights);
  lane.template store_states<0>(tensor.task, at, scratch);
}

// Thread blocks that a multiprocessor is to hold: two, which leaves 64 registers a thread; the
// larger kernels need more.
template <class Rule, class Format>
inline constexpr int kBlocksHeld =
    Rule::kStates > 2 || Rule::kKind == math::RuleKind::kTrustRatio ||
            std::is_same_v<Format, AnyFormat> || std::is_same_v<Format, math::Int4Rank1>
        ? 1
        : 2;

template <class Rule, class Format>
__global__ void __launch_bounds__(kThreads, (kBlocksHeld<Rule, Format>))
    step_kernel(StepArgs args) {
  NIBBLE_SHARED(float, scratch, kThreads / 32);
  const Chunk chunk = args.chunks[blockIdx.x];
  const Tensor& tensor = args.tensors[chunk.tensor];
  if (is_left_out(args, tensor)) {
    return;
  }
  StepLane<Rule, Format> lane;
  take_step(args, tensor, lane_of(chunk.index, tensor.count), scratch, lane);
}

template <class Rule>
cudaError_t launch_step_of(int format, const StepArgs& args, std::int64_t chunks,
                           cudaStream_t stream) {
  const auto grid = dim3(static_cast<unsigned>(chunks));
  switch (format) {
#define NIBBLE_FORMAT(id, name, Type)                                                        \
  case kIndexOf##Type:                                                                       \
    if constexpr (math::Type::kForStates) {                                                  \
      return NIBBLE_LAUNCH((step_kernel<Rule, math::Type>), grid, dim3(kThreads), 0, stream, \
                           args);                                                            \
    }                                                                                        \
    break;
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
    default:
      break;
  }
  return NIBBLE_LAUNCH((step_kernel<Rule, AnyFormat>), grid, dim3(kThreads), 0, stream, args);
}

}  // namespace nibble::cuda
