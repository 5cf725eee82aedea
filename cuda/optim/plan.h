// SPDX-License-Identifier: Apache-2.0
// What the kernels of a step share: the tables that lie in the device's memory. Host and device.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/device.h"

namespace nibble::cuda {

// A thread works on 8 neighbours, a thread block on 4096: always whole quantisation blocks.
inline constexpr int kLane = 8;
inline constexpr int kThreads = 512;
inline constexpr int kChunk = kLane * kThreads;
static_assert(kChunk == math::kMaxBlock);

// Hyper-parameters of a group and what they come to in this step.
struct Group {
  int rule = 0;  // index in math::kRules
  double hyper[math::kMaxHypers] = {};
  const float* source[math::kMaxHypers] = {};  // not null: the value is read from there
  float terms[math::kMaxTerms] = {};
  float keep = 1.0F;
  float decay = 0.0F;
};

// One tensor. `task` has the device's pointers; what changes from step to step (terms, scales,
// keep) comes from the group, or from `own` where the tensor has its own.
struct Tensor {
  backend::StepTask task;
  std::int64_t count = 0;
  std::int32_t group = 0;
  bool is_derived = false;  // a pass of a matrix rule: terms, keep and grad_scale are its own
  float own_terms[math::kMaxTerms] = {};
  // kTrustRatio: sums of squares by block, then by range, of weights and of updates.
  double* block_squares = nullptr;  // [2, blocks]
  double* range_squares = nullptr;  // [2, ranges]
  std::int64_t range = 0;           // elements
  std::int64_t rows = 0;            // of kRank1
};

// A thread block's work.
struct Chunk {
  std::uint32_t tensor;
  std::uint32_t index;  // elements from index * kChunk
};

// A leaf of the sums over gradients.
struct Leaf {
  std::uint32_t tensor;
  std::uint32_t index;  // elements from index * kSumLeaf
};

// What a step finds and decides. One in the device's memory.
struct Control {
  std::int64_t step = 0;       // steps taken; during a step that is taken, its number
  std::int64_t nonfinite = 0;  // gradients, in this step
  double norm = 0.0;           // of this step's gradients, if asked for
  float grad_scale = 1.0F;     // with clipping
  float finite_scale = 1.0F;   // without
  std::int32_t taken = 0;
  std::int32_t skip_elements = 0;
};

// What every kernel of a step gets. Passed by value.
struct StepArgs {
  Control* control = nullptr;
  Group* groups = nullptr;
  Tensor* tensors = nullptr;
  const Chunk* chunks = nullptr;
};

// How a step is to be decided. Passed by value.
struct StepPolicy {
  float grad_scale = 1.0F;
  double clip = 0.0;  // > 0: the largest norm
  const float* found_inf = nullptr;
  backend::Nonfinite nonfinite = backend::Nonfinite::kSkipStep;
};

}  // namespace nibble::cuda
