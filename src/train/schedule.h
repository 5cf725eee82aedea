// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules, as Hugging Face defines them: step counts from 0, so with a warm-up the
// first optimizer step has learning rate 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace nibble::train {

inline std::int64_t warmup_steps(double ratio, std::int64_t steps, std::int64_t total) {
  return steps >= 0 ? steps
                    : static_cast<std::int64_t>(std::ceil(ratio * static_cast<double>(total)));
}

// Factor of the peak learning rate at `step` of `total`. name: "cosine", "linear", "constant".
inline double learning_rate_factor(std::string_view name, std::int64_t step, std::int64_t warmup,
                                   std::int64_t total) {
  if (step < warmup) {
    return static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup));
  }
  if (name == "constant") {
    return 1;
  }
  const double progress = static_cast<double>(step - warmup) /
                          static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  return name == "linear" ? std::max(0.0, 1 - progress)
                          : std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

}  // namespace nibble::train
