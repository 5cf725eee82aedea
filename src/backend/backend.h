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

#include "backend/update.h"
#include "math/formats/formats.h"
#include "math/weights/weights.h"

namespace nibble::backend {

// A tensor of numbers to be read.
struct Source {
  const void* data = nullptr;
  bool is_bf16 = false;  // else float
};

// The scales of a kRank1 state: of a matrix's rows and columns, before the step and after it.
struct Rank1Scales {
  const float* row = nullptr;
  const float* column = nullptr;
  float* next_row = nullptr;
  float* next_column = nullptr;
};

// One state of one tensor. For fp32 `data` holds floats.
struct StateView {
  int format = 0;                // index in math::kFormats
  std::uint8_t* data = nullptr;  // null: the state is left out; it reads as 0 and is not kept
  float* scale = nullptr;        // of Scale::kBlock, else null
  Rank1Scales rank1;             // of Scale::kRank1
};

struct WeightView {
  int format = 0;  // index in math::kWeights
  std::uint8_t* data = nullptr;
  std::uint8_t* extra = nullptr;
  float* scale = nullptr;
};

// What a step of one tensor did to its states, for reports.
struct StepStats {
  double error_squares[math::kMaxStates] = {};  // of what is stored against what was computed
  double squares[math::kMaxStates] = {};        // of what was computed
  double largest_error[math::kMaxStates] = {};
  std::int64_t lost[math::kMaxStates] = {};  // stored as 0 without being 0

  void add(const StepStats& other) {
    for (int s = 0; s < math::kMaxStates; ++s) {
      error_squares[s] += other.error_squares[s];
      squares[s] += other.squares[s];
      largest_error[s] =
          largest_error[s] < other.largest_error[s] ? other.largest_error[s] : largest_error[s];
      lost[s] += other.lost[s];
    }
  }
};

struct StepTask : UpdateTerms {
  int rule = 0;  // index in math::kRules
  WeightView weights;
  Source grads;
  StateView state[math::kMaxStates];
  std::int64_t block = 256;  // of states and weights with a scale for each block
  std::int64_t columns = 1;  // of the matrix, for kRank1
  math::Rounding rounding = math::Rounding::kSafe;
  math::RandomStream random;   // of weights that round stochastically
  StepStats* stats = nullptr;  // added to, if not null; slow
};

// What must be known of a whole tensor before its step can be taken.
struct Measures {
  // kTrustRatio: sums of squares of the weights and of direction + decay * weights.
  double weight_squares = 0.0;
  double update_squares = 0.0;
  // kRank1, by state: maxima of the new state. `row_maximum` is the tensor's (a range writes the
  // larger of what is there and its own: rows are not shared by ranges); `column_maximum` is the
  // range's own, of `columns` floats, and set by it.
  float* row_maximum[math::kMaxStates] = {};
  float* column_maximum[math::kMaxStates] = {};
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
  // it is the tensor's end. What belongs to exactly those elements is read and written.
  void (*step)(const StepTask& task, std::int64_t first, std::int64_t last) noexcept;
  // The same step without writing anything but `out`.
  void (*measure)(const StepTask& task, std::int64_t first, std::int64_t last,
                  Measures* out) noexcept;
  // Elements [first, first + n), n <= kSumLeaf, each times scale (as a float). Sixteen double
  // accumulators, element i to number i % 16; then neighbours are added, four times.
  LeafSum (*sum_leaf)(Source x, std::int64_t first, std::int64_t n, float scale) noexcept;
  // How many of x[i] * scale are not finite.
  std::int64_t (*count_nonfinite)(Source x, std::int64_t first, std::int64_t n,
                                  float scale) noexcept;
  // out[i] += x[i] * scale (fused), for i in [first, first + n).
  void (*accumulate)(Source x, std::int64_t first, std::int64_t n, float scale,
                     float* out) noexcept;
  // A run of whole blocks (the last may be short) of a format with a scale for each block.
  void (*quantize)(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
                   math::Rounding rounding, std::uint8_t* codes, float* scale) noexcept;
  // With `past_caches` the floats are written past the caches, for what is larger than those.
  void (*dequantize)(const std::uint8_t* codes, const float* scale, std::int64_t n,
                     std::int64_t block, int format, bool is_signed, bool past_caches,
                     float* out) noexcept;
  // c = a b for row-major matrices a [rows, depth], b [depth, columns]; each element is a chain of
  // fused multiply-adds in the order of depth, from 0.
  void (*matmul)(const float* a, const float* b, float* c, std::int64_t rows, std::int64_t columns,
                 std::int64_t depth) noexcept;
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
