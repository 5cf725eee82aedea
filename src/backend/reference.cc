// SPDX-License-Identifier: Apache-2.0
// The scalar backend: the oracle of all others, and what runs below AVX2. Plain loops over the
// definitions in src/math.
#include <algorithm>
#include <bit>

#include "backend/backend.h"

namespace nibble::backend {
namespace {

template <class Rule>
void step_elements(const StepTask& task, float* weights, const float* grads, float* const* states,
                   std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float grad = grads[i] * task.grad_scale;
    if (task.skip_nonfinite && !math::is_finite_bits(std::bit_cast<std::uint32_t>(grad))) {
      continue;
    }
    float state[math::kMaxStates];
    for (int s = 0; s < Rule::kStates; ++s) {
      state[s] = states[s][i];
    }
    weights[i] = Rule::apply(task.terms, weights[i], grad, state);
    for (int s = 0; s < Rule::kStates; ++s) {
      states[s][i] = state[s];
    }
  }
}

template <class Rule>
void step_blocks(const StepTask& task, std::int64_t first, std::int64_t last) {
  float stage[math::kMaxStates][math::kMaxBlock];
  float* states[math::kMaxStates];
  for (std::int64_t begin = first; begin < last; begin += task.block) {
    const std::int64_t n = std::min(task.block, last - begin);
    const std::int64_t block = begin / task.block;
    for (int s = 0; s < Rule::kStates; ++s) {
      const StateView& view = task.state[s];
      const math::FormatInfo& format = math::kFormats[view.format];
      if (format.block_wise) {
        states[s] = stage[s];
        format.decode(Rule::kState[s].is_signed, view.data + format.packed_bytes(begin),
                      view.absmax[block], n, stage[s]);
      } else {
        states[s] = reinterpret_cast<float*>(view.data) + begin;
      }
    }
    step_elements<Rule>(task, task.weights + begin, task.grads + begin, states, n);
    for (int s = 0; s < Rule::kStates; ++s) {
      const StateView& view = task.state[s];
      const math::FormatInfo& format = math::kFormats[view.format];
      if (format.block_wise) {
        format.encode(Rule::kState[s].is_signed, stage[s], n, task.rounding,
                      view.data + format.packed_bytes(begin), &view.absmax[block]);
      }
    }
  }
}

void step(const StepTask& task, std::int64_t first, std::int64_t last) noexcept {
  using StepFn = void (*)(const StepTask&, std::int64_t, std::int64_t);
  static constexpr StepFn kSteps[] = {
#define NIBBLE_RULE(id, name, Type) &step_blocks<math::Type>,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  kSteps[task.rule](task, first, last);
}

LeafSum sum_leaf(const float* x, std::int64_t n) noexcept {
  double acc[16] = {};
  LeafSum out;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool finite = math::is_finite_bits(std::bit_cast<std::uint32_t>(x[i]));
    const double value = finite ? x[i] : 0.0F;
    acc[i % 16] += value * value;  // the square of a float is exact in double
    out.nonfinite += finite ? 0 : 1;
  }
  out.sum_of_squares = combine_accumulators(acc);
  return out;
}

std::int64_t count_nonfinite(const float* x, std::int64_t n, float scale) noexcept {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    count += math::is_finite_bits(std::bit_cast<std::uint32_t>(x[i] * scale)) ? 0 : 1;
  }
  return count;
}

void quantize(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
              math::Rounding rounding, std::uint8_t* codes, float* absmax) noexcept {
  const math::FormatInfo& info = math::kFormats[format];
  for (std::int64_t begin = 0; begin < n; begin += block) {
    info.encode(is_signed, x + begin, std::min(block, n - begin), rounding,
                codes + info.packed_bytes(begin), absmax + begin / block);
  }
}

void dequantize(const std::uint8_t* codes, const float* absmax, std::int64_t n, std::int64_t block,
                int format, bool is_signed, float* out) noexcept {
  const math::FormatInfo& info = math::kFormats[format];
  for (std::int64_t begin = 0; begin < n; begin += block) {
    info.decode(is_signed, codes + info.packed_bytes(begin), absmax[begin / block],
                std::min(block, n - begin), out + begin);
  }
}

}  // namespace

const Backend& reference_backend() {
  static constexpr Backend kBackend = {"scalar",         &step,     &sum_leaf,
                                       &count_nonfinite, &quantize, &dequantize};
  return kBackend;
}

}  // namespace nibble::backend
