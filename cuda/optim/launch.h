// SPDX-License-Identifier: Apache-2.0
// The kernels, as functions that the host calls. Each enqueues on the stream and returns the
// launch's error; none waits. Pointers are the device's.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/optim/plan.h"
#include "math/formats/ggml_blocks.h"

namespace nibble::cuda {

// ---- A step, in this order -------------------------------------------------------------------

// Sums of squares and counts of all scaled gradients into sums[leaf], by the tree of backend.h.
cudaError_t launch_leaf_sums(const StepArgs& args, const Leaf* leaves, std::int64_t count,
                             float scale, backend::LeafSum* sums, cudaStream_t stream);
// The norm and the scale that clips it.
cudaError_t launch_conclude_norm(const StepArgs& args, const backend::LeafSum* sums,
                                 std::int64_t count, StepPolicy policy, cudaStream_t stream);
// How many scaled gradients are not finite: for a step without a norm.
cudaError_t launch_count_nonfinite(const StepArgs& args, const Leaf* leaves, std::int64_t count,
                                   StepPolicy policy, cudaStream_t stream);
// Begins a step: clears what the last one found.
cudaError_t launch_begin(const StepArgs& args, StepPolicy policy, cudaStream_t stream);
// Whether the step is taken, and what it takes from the hyper-parameters of each group.
cudaError_t launch_decide(const StepArgs& args, int groups, StepPolicy policy, cudaStream_t stream);
// What must be known of a whole tensor before its step; `tensors`: `count` indices of those.
cudaError_t launch_clear_rank1(const StepArgs& args, const std::uint32_t* tensors,
                               std::int64_t count, cudaStream_t stream);
cudaError_t launch_measure(int rule, const StepArgs& args, std::int64_t chunks,
                           cudaStream_t stream);
cudaError_t launch_trust_ratios(const StepArgs& args, const std::uint32_t* tensors,
                                std::int64_t count, cudaStream_t stream);
// `chunks` thread blocks of tensors of one rule; format: that of all their states, or -1.
cudaError_t launch_step(int rule, int format, const StepArgs& args, std::int64_t chunks,
                        cudaStream_t stream);
// The same, with what became of the states: stats[i] of chunk i.
cudaError_t launch_collect(int rule, const StepArgs& args, std::int64_t chunks,
                           backend::StepStats* stats, cudaStream_t stream);
// The scales after the step become those of the next one.
cudaError_t launch_finish_rank1(const StepArgs& args, const std::uint32_t* tensors,
                                std::int64_t count, cudaStream_t stream);

// ---- Changes of the tables -------------------------------------------------------------------

// By value, so that a captured graph keeps them and no staging memory is needed.
inline constexpr int kPointersInLaunch = 480;
struct PointerBatch {
  const void* data[kPointersInLaunch];
};
cudaError_t launch_set_grads(const StepArgs& args, std::uint32_t first, int count,
                             const PointerBatch& grads, cudaStream_t stream);
cudaError_t launch_set_hypers(const StepArgs& args, int group, const Group& value,
                              cudaStream_t stream);
cudaError_t launch_set_step(const StepArgs& args, std::int64_t step, cudaStream_t stream);

// ---- Tensors ---------------------------------------------------------------------------------

cudaError_t launch_quantize(const float* x, std::int64_t n, std::int64_t block, int format,
                            bool is_signed, math::Rounding rounding, std::uint8_t* codes,
                            float* scale, cudaStream_t stream);
cudaError_t launch_dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n,
                              std::int64_t block, int format, bool is_signed, float* out,
                              cudaStream_t stream);
cudaError_t launch_accumulate(backend::Source x, std::int64_t n, float scale, float* out,
                              cudaStream_t stream);

// backend/scales.h
cudaError_t launch_subtract_mean(float* x, std::int64_t n, float* mean, cudaStream_t stream);
cudaError_t launch_add(float* x, std::int64_t n, const float* value, cudaStream_t stream);

// `count` blocks of a GGUF type to floats.
cudaError_t launch_decode_ggml(math::GgmlType type, const std::byte* blocks, std::int64_t count,
                               float* out, cudaStream_t stream);

}  // namespace nibble::cuda
