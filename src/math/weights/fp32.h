// SPDX-License-Identifier: Apache-2.0
// Plain floats.
#pragma once

#include "math/weights/weight.h"

namespace nibble::math {

struct Fp32Weights {
  static constexpr WeightInfo kInfo = {0,       nullptr, "F32",  32,    nullptr,
                                       nullptr, 0,       false,  false, WeightsInPlace::kWeights,
                                       nullptr, nullptr, nullptr};
};

}  // namespace nibble::math
