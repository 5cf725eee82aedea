// SPDX-License-Identifier: Apache-2.0
// int8 weights without a master: code * scale with scale = absmax / 127 of the block, rounded
// stochastically: floor(x / scale + u), u the element's uniform number in [0, 1).
#pragma once

#include "math/formats/table_format.h"
#include "math/weights/weight.h"

namespace nibble::math {

struct Int8Stochastic {
  static constexpr float kTop = 127.0F;

  static NIBBLE_HD std::int8_t round(float x, float reciprocal, float uniform) {
    const float at = std::floor(x * reciprocal + uniform);
    return static_cast<std::int8_t>(std::clamp(at, -kTop, +kTop));
  }
  static NIBBLE_HD void decode(const WeightBlock& block, std::int64_t n, float* out) {
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<float>(static_cast<std::int8_t>(block.data[i])) * *block.scale;
    }
  }
  static void encode(const WeightBlock& block, const float* x, std::int64_t n,
                     const RandomStream& random, std::int64_t first) {
    const BlockScale by = scale_of(block_absmax(x, n));
    encode_scaled(block, x, n, by, random, first);
    *block.scale = by.stored;
  }
  static constexpr BlockScale scale_of(float absmax) {
    return BlockScale::of(absmax, kTop, Rounding::kSafe);
  }
  // Part of a block whose scale is known.
  static NIBBLE_HD void encode_scaled(const WeightBlock& block, const float* x, std::int64_t n,
                                      BlockScale by, const RandomStream& random,
                                      std::int64_t first) {
    for (std::int64_t i = 0; i < n; ++i) {
      const float uniform = random.uniform(static_cast<std::uint64_t>(first + i));
      block.data[i] = static_cast<std::uint8_t>(round(saturated(x[i]), by.reciprocal, uniform));
    }
  }
  static constexpr WeightInfo kInfo = {0,       nullptr, "I8",   8,    nullptr,
                                       nullptr, 0,       true,   true, WeightsInPlace::kNowhere,
                                       &decode, &encode, nullptr};
};

}  // namespace nibble::math
