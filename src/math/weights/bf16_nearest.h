// SPDX-License-Identifier: Apache-2.0
// bf16 weights without a master, rounded to nearest even: updates under half a unit in the last
// place are lost. What plain bf16 training does; a control, not a recommendation.
#pragma once

#include "math/weights/bf16_master.h"
#include "math/weights/bf16_stochastic.h"

namespace nibble::math {

struct Bf16Nearest {
  static NIBBLE_HD void decode(const WeightBlock& block, std::int64_t n, float* out) {
    Bf16Stochastic::decode(block, n, out);
  }
  static NIBBLE_HD void encode(const WeightBlock& block, const float* x, std::int64_t n,
                               const RandomStream& random, std::int64_t first) {
    Bf16Master::encode(block, x, n, random, first);
  }
  static constexpr WeightInfo kInfo = {0,       nullptr, "BF16", 16,    nullptr,
                                       nullptr, 0,       false,  false, WeightsInPlace::kNowhere,
                                       &decode, &encode, nullptr};
};

}  // namespace nibble::math
