// SPDX-License-Identifier: Apache-2.0
// bf16 weights with 16 correction bits (bf16_correction.h).
#pragma once

#include "math/weights/bf16_correction.h"

namespace nibble::math {

struct Bf16Correction16 : Bf16Correction<16> {
  static constexpr WeightInfo kInfo = {0,       nullptr, "BF16", 16,    "correction",
                                       "I16",   16,      false,  false, WeightsInPlace::kNowhere,
                                       &decode, &encode, &adopt};
};

}  // namespace nibble::math
