// SPDX-License-Identifier: Apache-2.0
// bf16 weights without a master: stochastic rounding, so that small updates count on average. A
// float goes up to the next bf16 (away from zero) with the probability of its distance from the
// lower one: 16 random bits (the upper half of the element's word) are added below the cut.
#pragma once

#include "math/weights/weight.h"

namespace nibble::math {

struct Bf16Stochastic {
  static constexpr bf16 round(float x, std::uint32_t random) {
    const std::uint32_t bits = bits_of(x);
    if ((bits & 0x7f800000U) == 0x7f800000U) {
      return float_to_bf16(x);
    }
    const std::uint32_t moved = bits + (random >> 16);
    constexpr std::uint32_t kLargest = 0x7f7fU;  // never up to infinity
    const std::uint32_t magnitude = std::min((moved >> 16) & 0x7fffU, kLargest);
    return static_cast<bf16>(magnitude | ((bits >> 16) & 0x8000U));
  }
  static NIBBLE_HD void decode(const WeightBlock& block, std::int64_t n, float* out) {
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = bf16_to_float(load_bf16(block.data, i));
    }
  }
  static NIBBLE_HD void encode(const WeightBlock& block, const float* x, std::int64_t n,
                               const RandomStream& random, std::int64_t first) {
    for (std::int64_t i = 0; i < n; ++i) {
      store_bf16(block.data, i, round(x[i], random.bits(static_cast<std::uint64_t>(first + i))));
    }
  }
  static constexpr WeightInfo kInfo = {0,       nullptr, "BF16", 16,   nullptr,
                                       nullptr, 0,       false,  true, WeightsInPlace::kNowhere,
                                       &decode, &encode, nullptr};
};

}  // namespace nibble::math
