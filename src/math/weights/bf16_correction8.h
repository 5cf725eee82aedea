// SPDX-License-Identifier: Apache-2.0
// bf16 weights with 8 correction bits (bf16_correction.h).
#pragma once

#include "math/weights/bf16_correction.h"

namespace nibble::math {

struct Bf16Correction8 : Bf16Correction<8> {
  static constexpr WeightInfo kInfo = {0,       nullptr, "BF16", 16,    "correction",
                                       "I8",    8,       false,  false, WeightsInPlace::kNowhere,
                                       &decode, &encode, &adopt};
};

}  // namespace nibble::math
