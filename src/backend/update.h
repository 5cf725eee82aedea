// SPDX-License-Identifier: Apache-2.0
// What a step does to one element: the scalar definition, for the reference backend and for device
// kernels. The SIMD kernels (cpu/optim) do the same on vectors.
#pragma once

#include <bit>
#include <cstdint>

#include "math/host_device.h"
#include "math/rules/rules.h"

namespace nibble::backend {

// What becomes of the direction (math/rules/rule.h).
enum class Form : std::int32_t {
  kDecayBefore = 0,        // p = fma(-step, direction, p * keep)
  kDecayAfter = 1,         // p = fma(-step, direction, p) * keep
  kDecayIntoGradient = 2,  // the gradient is fma(decay, p, g * scale); p = fma(-step, direction, p)
  kDirection = 3,          // p = direction: the weights are only written
};

struct UpdateTerms {
  Form form = Form::kDecayBefore;
  const float* terms = nullptr;  // from RuleInfo::prepare
  float grad_scale = 1.0F;       // multiplies every gradient first
  float finite_scale = 1.0F;     // the same before clipping: decides which gradients are finite
  float step_scale = 1.0F;       // multiplies the rule's step (term 0) as a float
  float keep = 1.0F;             // see Form
  float decay = 0.0F;            // see Form
  bool skip_nonfinite = false;   // leave elements with a non-finite gradient as they are
};

// What multiplies gradients of this norm so that it is at most max_norm, as PyTorch's
// clip_grad_norm_ has it.
constexpr float clip_scale(double norm, double max_norm) {
  const double ratio = max_norm / (norm + 1e-6);
  return static_cast<float>(ratio < 1.0 ? ratio : 1.0);
}

// Of a gradient as it came.
NIBBLE_HD inline bool is_skipped(const UpdateTerms& u, float grad) {
  return u.skip_nonfinite &&
         !math::is_finite_bits(std::bit_cast<std::uint32_t>(grad * u.finite_scale));
}

template <class Rule>
NIBBLE_HD inline void update_element(const UpdateTerms& u, float grad, float& weight,
                                     float* state) {
  if (is_skipped(u, grad)) {
    if (u.form == Form::kDirection) {
      weight = 0.0F;  // it is not loaded, and nothing moves
    }
    return;
  }
  grad *= u.grad_scale;
  if (u.form == Form::kDecayIntoGradient) {
    grad = math::fma(u.decay, weight, grad);
  }
  const float direction = Rule::direction(u.terms, grad, state);
  const float step = u.terms[math::kMinusStep] * u.step_scale;
  switch (u.form) {
    case Form::kDecayBefore:
      weight = math::fma(step, direction, weight * u.keep);
      break;
    case Form::kDecayAfter:
      weight = math::fma(step, direction, weight) * u.keep;
      break;
    case Form::kDecayIntoGradient:
      weight = math::fma(step, direction, weight);
      break;
    case Form::kDirection:
      weight = direction;
      break;
  }
}

// What an element counts in the norm of a trust ratio's update: nothing, if it will not move.
// `direction` is from Form::kDirection.
NIBBLE_HD inline float decayed_direction(const UpdateTerms& u, float grad, float direction,
                                         float weight) {
  return is_skipped(u, grad) ? 0.0F : math::fma(u.decay, weight, direction);
}

}  // namespace nibble::backend
