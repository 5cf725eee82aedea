// SPDX-License-Identifier: Apache-2.0
// Double quantisation (Dettmers et al., "QLoRA", 2023, section 3): scales are kept as codes of
// their distance from their mean.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace nibble::backend {

// Accumulators of the mean: element i goes to i % kMeanSums, and these are added in order, so that
// every backend gives the same bits.
inline constexpr int kMeanSums = 512;

// The accumulator `k` of n elements.
NIBBLE_HD inline double mean_sum(const float* x, std::int64_t n, std::int64_t k) {
  double sum = 0.0;
  for (std::int64_t i = k; i < n; i += kMeanSums) {
    sum += x[i];
  }
  return sum;
}

NIBBLE_HD inline float mean_of(const double* sums, std::int64_t n) {
  double total = 0.0;
  for (int k = 0; k < kMeanSums; ++k) {
    total += sums[k];
  }
  return static_cast<float>(total / static_cast<double>(n));
}

// The two ways: x becomes x - *mean, which is found; and x + *value.
inline void subtract_mean(float* x, std::int64_t n, float* mean) {
  double sums[kMeanSums];
  for (int k = 0; k < kMeanSums; ++k) {
    sums[k] = mean_sum(x, n, k);
  }
  *mean = mean_of(sums, n);
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] -= *mean;
  }
}
inline void add(float* x, std::int64_t n, const float* value) {
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] += *value;
  }
}

}  // namespace nibble::backend
