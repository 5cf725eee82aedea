// SPDX-License-Identifier: Apache-2.0
// What a step decides on the device, without waiting for the host: the norm of the gradients, the
// policy for those that are not finite, and the terms of every group.
#include "cuda/optim/launch.h"
#include "cuda/optim/sums.cuh"

namespace nibble::cuda {
namespace {

// The elements of a leaf, and the gradient that they are of; none where it is missing.
struct LeafRange {
  backend::Source grads;
  std::int64_t first, last;
};
__device__ LeafRange range_of(const StepArgs& args, Leaf leaf) {
  const Tensor& tensor = args.tensors[leaf.tensor];
  const std::int64_t first = std::int64_t{leaf.index} * backend::kSumLeaf;
  const std::int64_t last = first + backend::kSumLeaf;
  const bool is_there = tensor.task.grads.data != nullptr;
  return {tensor.task.grads, first,
          !is_there ? first : (last < tensor.count ? last : tensor.count)};
}

constexpr int kInFlight = 8;  // loads of a thread that do not wait for one another

// Sixteen neighbouring threads a leaf, each with one accumulator.
__global__ void __launch_bounds__(kSumThreads)
    leaf_sums_kernel(StepArgs args, const Leaf* leaves, std::int64_t count, float scale,
                     backend::LeafSum* sums) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x) / kSums;
  const int lane = static_cast<int>(threadIdx.x) % kSums;
  double sum = 0.0;
  long long nonfinite = 0;
  if (i < count) {
    const LeafRange range = range_of(args, leaves[i]);
    for (std::int64_t e = range.first + lane; e < range.last; e += kSums * kInFlight) {
      float element[kInFlight];
      NIBBLE_UNROLL
      for (int i = 0; i < kInFlight; ++i) {
        const std::int64_t at = e + i * kSums;
        element[i] = at < range.last ? element_of(range.grads, at) * scale : 0.0F;
      }
      NIBBLE_UNROLL
      for (int i = 0; i < kInFlight;
           ++i) {  // a 0 behind the end changes no bit of a sum of squares
        sum += finite_square(element[i]);
        nonfinite += is_finite(element[i]) ? 0 : 1;
      }
    }
  }
  sum = combine_accumulators(sum);
  nonfinite = combine_accumulators(nonfinite);
  if (i < count && lane == 0) {
    sums[i] = {sum, nonfinite};
  }
}

__global__ void begin_kernel(StepArgs args, StepPolicy policy) {
  Control& control = *args.control;
  control.nonfinite = 0;
  control.norm = 0.0;
  control.grad_scale = policy.grad_scale;
  control.finite_scale = policy.grad_scale;
}

// One thread block.
__global__ void __launch_bounds__(kSumThreads)
    conclude_norm_kernel(StepArgs args, const backend::LeafSum* sums, std::int64_t count,
                         StepPolicy policy) {
  NIBBLE_SHARED(double, staged, kSumThreads);
  const double total =
      sum_in_order_by_block(staged, count, [&](std::int64_t i) { return sums[i].sum_of_squares; });
  // Exact in doubles: there are not 2^53 elements.
  const double nonfinite = sum_in_order_by_block(
      staged, count, [&](std::int64_t i) { return static_cast<double>(sums[i].nonfinite); });
  if (threadIdx.x != 0) {
    return;
  }
  Control& control = *args.control;
  control.nonfinite = static_cast<std::int64_t>(nonfinite);
  const double norm = std::sqrt(total);  // of the finite ones
  const bool skips = policy.nonfinite == backend::Nonfinite::kSkipElement;
  control.norm = control.nonfinite > 0 && !skips ? std::numeric_limits<double>::infinity() : norm;
  if (policy.clip > 0) {
    control.grad_scale *= backend::clip_scale(norm, policy.clip);
  }
}

__global__ void __launch_bounds__(kSumThreads)
    count_nonfinite_kernel(StepArgs args, const Leaf* leaves, float scale) {
  const LeafRange range = range_of(args, leaves[blockIdx.x]);
  int nonfinite = 0;
  for (std::int64_t e = range.first + threadIdx.x; e < range.last; e += kSumThreads) {
    nonfinite += is_finite(element_of(range.grads, e) * scale) ? 0 : 1;
  }
  if (nonfinite != 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(&args.control->nonfinite),
              static_cast<unsigned long long>(nonfinite));
  }
}

__device__ void prepare(int rule, const double* hyper, std::int64_t step, float* terms) {
  int index = 0;
#define NIBBLE_RULE(id, name, Type)          \
  if (index++ == rule) {                     \
    math::Type::prepare(hyper, step, terms); \
  }
#include "math/rules/rules.def"
#undef NIBBLE_RULE
}

// One thread block; a thread for each group.
__global__ void decide_kernel(StepArgs args, int groups, StepPolicy policy) {
  Control& control = *args.control;
  const bool found_inf = policy.found_inf != nullptr && *policy.found_inf != 0.0F;
  const bool bad = control.nonfinite > 0;
  const std::int64_t step = control.step + 1;
  for (int g = static_cast<int>(threadIdx.x); g < groups; g += static_cast<int>(blockDim.x)) {
    Group& group = args.groups[g];
    double hyper[math::kMaxHypers];
    for (int i = 0; i < math::kMaxHypers; ++i) {
      hyper[i] = group.source[i] != nullptr ? double{*group.source[i]} : group.hyper[i];
      group.hyper[i] = hyper[i];
    }
    prepare(group.rule, hyper, step, group.terms);
    group.keep = static_cast<float>(1.0 - hyper[math::kLearningRate] * hyper[math::kWeightDecay]);
    group.decay = static_cast<float>(hyper[math::kWeightDecay]);
  }
  __syncthreads();  // everyone has read the step
  if (threadIdx.x == 0) {
    const bool refused = bad && policy.nonfinite == backend::Nonfinite::kSkipStep;
    control.taken = found_inf || refused ? 0 : 1;
    control.skip_elements = bad && policy.nonfinite == backend::Nonfinite::kSkipElement ? 1 : 0;
    control.step += control.taken;
  }
}

__global__ void set_grads_kernel(StepArgs args, std::uint32_t first, int count,
                                 PointerBatch grads) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    args.tensors[first + static_cast<std::uint32_t>(i)].task.grads.data = grads.data[i];
  }
}

__global__ void set_hypers_kernel(StepArgs args, int group, Group value) {
  args.groups[group] = value;
}

__global__ void set_step_kernel(StepArgs args, std::int64_t step) { args.control->step = step; }

dim3 grid_of(std::int64_t items, std::int64_t each) {
  return dim3(static_cast<unsigned>(math::block_count(items, each)));
}

}  // namespace

cudaError_t launch_leaf_sums(const StepArgs& args, const Leaf* leaves, std::int64_t count,
                             float scale, backend::LeafSum* sums, cudaStream_t stream) {
  return NIBBLE_LAUNCH(leaf_sums_kernel, grid_of(count, kSumThreads / kSums), dim3(kSumThreads), 0,
                       stream, args, leaves, count, scale, sums);
}

cudaError_t launch_begin(const StepArgs& args, StepPolicy policy, cudaStream_t stream) {
  return NIBBLE_LAUNCH(begin_kernel, dim3(1), dim3(1), 0, stream, args, policy);
}

cudaError_t launch_conclude_norm(const StepArgs& args, const backend::LeafSum* sums,
                                 std::int64_t count, StepPolicy policy, cudaStream_t stream) {
  return NIBBLE_LAUNCH(conclude_norm_kernel, dim3(1), dim3(kSumThreads), 0, stream, args, sums,
                       count, policy);
}

cudaError_t launch_count_nonfinite(const StepArgs& args, const Leaf* leaves, std::int64_t count,
                                   StepPolicy policy, cudaStream_t stream) {
  return NIBBLE_LAUNCH(count_nonfinite_kernel, dim3(static_cast<unsigned>(count)),
                       dim3(kSumThreads), 0, stream, args, leaves, policy.grad_scale);
}

cudaError_t launch_decide(const StepArgs& args, int groups, StepPolicy policy,
                          cudaStream_t stream) {
  return NIBBLE_LAUNCH(decide_kernel, dim3(1), dim3(64), 0, stream, args, groups, policy);
}

cudaError_t launch_set_grads(const StepArgs& args, std::uint32_t first, int count,
                             const PointerBatch& grads, cudaStream_t stream) {
  return NIBBLE_LAUNCH(set_grads_kernel, dim3(1), dim3(128), 0, stream, args, first, count, grads);
}

cudaError_t launch_set_hypers(const StepArgs& args, int group, const Group& value,
                              cudaStream_t stream) {
  return NIBBLE_LAUNCH(set_hypers_kernel, dim3(1), dim3(1), 0, stream, args, group, value);
}

cudaError_t launch_set_step(const StepArgs& args, std::int64_t step, cudaStream_t stream) {
  return NIBBLE_LAUNCH(set_step_kernel, dim3(1), dim3(1), 0, stream, args, step);
}

}  // namespace nibble::cuda
