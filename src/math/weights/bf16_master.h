// SPDX-License-Identifier: Apache-2.0
// bf16 weights with a float master copy in the optimizer: 6 bytes an element. The bf16 weights are
// the master's, rounded to nearest even.
#pragma once

#include "math/weights/weight.h"

namespace nibble::math {

struct Bf16Master {
  static NIBBLE_HD void encode(const WeightBlock& block, const float* x, std::int64_t n,
                               const RandomStream&, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
      store_bf16(block.data, i, float_to_bf16(x[i]));
    }
  }
  static NIBBLE_HD void adopt(const WeightBlock& block, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      const float value = bf16_to_float(load_bf16(block.data, i));
      std::memcpy(block.extra + 4 * i, &value, sizeof(value));
    }
  }
  static constexpr WeightInfo kInfo = {0,       nullptr, "BF16", 16,    "master",
                                       "F32",   32,      false,  false, WeightsInPlace::kExtra,
                                       nullptr, &encode, &adopt};
};

}  // namespace nibble::math
