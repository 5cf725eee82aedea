// SPDX-License-Identifier: Apache-2.0
// The contract of a backend for optimizer work: a table of functions over one range of one tensor.
//
// For all of them: pointers are valid for the stated range, need no alignment, and do not overlap
// unless they are equal; nothing is allocated, thrown or printed; the functions are single-threaded
// and re-entrant. The floating-point environment is the default one (ScopedFloatEnvironment).
// Every backend gives the same bits as the reference one (reference.cc), which is the oracle.
#pragma once

#include <cstddef>
#include <cstdint>

#include "math/formats/formats.h"
#include "math/rules/rules.h"

namespace nibble::backend {

// One state of one tensor. For fp32 `data` holds floats and `absmax` is null.
struct StateView {
  int format = 0;  // index in math::kFormats
  std::uint8_t* data = nullptr;
  float* absmax = nullptr;
};

struct StepTask {
  int rule = 0;  // index in math::kRules
  float* weights = nullptr;
  const float* grads = nullptr;
  StateView state[math::kMaxStates];
  std::int64_t block = math::kDefaultBlock;  // of the block-wise states
  const float* terms = nullptr;              // from RuleInfo::prepare
  float grad_scale = 1.0F;                   // multiplies every gradient first
  math::Rounding rounding = math::Rounding::kSafe;
  bool skip_nonfinite = false;  // leave elements with a non-finite gradient as they are
};

// Elements of a leaf of the summation tree: part of the definition of a sum.
inline constexpr std::int64_t kSumLeaf = 1 << 16;

struct LeafSum {
  double sum_of_squares = 0.0;  // of the finite elements
  std::int64_t nonfinite = 0;
};

struct Backend {
  const char* name;
  // Elements [first, last) of the tensor; `first` is a multiple of the block, and `last` too unless
  // it is the tensor's end. Codes and absmax of exactly those blocks are read and written.
  void (*step)(const StepTask& task, std::int64_t first, std::int64_t last) noexcept;
  // n <= kSumLeaf elements. Sixteen double accumulators, element i to number i % 16; then
  // neighbours are added, four times.
  LeafSum (*sum_leaf)(const float* x, std::int64_t n) noexcept;
  // How many of x[i] * scale are not finite.
  std::int64_t (*count_nonfinite)(const float* x, std::int64_t n, float scale) noexcept;
  // A run of whole blocks (the last may be short) of a block-wise format.
  void (*quantize)(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
                   math::Rounding rounding, std::uint8_t* codes, float* absmax) noexcept;
  void (*dequantize)(const std::uint8_t* codes, const float* absmax, std::int64_t n,
                     std::int64_t block, int format, bool is_signed, float* out) noexcept;
};

const Backend& reference_backend();

// The rest of a sum's tree, shared by all backends.
inline double combine_accumulators(double (&acc)[16]) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      acc[i] = acc[2 * i] + acc[2 * i + 1];
    }
  }
  return acc[0];
}

}  // namespace nibble::backend
