// SPDX-License-Identifier: Apache-2.0
// All weight formats: the table and the types.
#pragma once

#include <string_view>

#include "nibble_weight_files.inc"  // NOLINT: generated from weights.def

namespace nibble::math {

template <class Weights>
constexpr WeightInfo weight_info(std::int32_t id, const char* name) {
  WeightInfo info = Weights::kInfo;
  info.id = id;
  info.name = name;
  return info;
}

inline constexpr WeightInfo kWeights[] = {
#define NIBBLE_WEIGHTS(id, name, Type) weight_info<Type>(id, #name),
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
};

inline constexpr int kWeightsCount = static_cast<int>(sizeof(kWeights) / sizeof(kWeights[0]));

// Index in kWeights; -1 if there is none of that name.
inline int find_weights(std::string_view name) {
  for (int i = 0; i < kWeightsCount; ++i) {
    if (name == kWeights[i].name) {
      return i;
    }
  }
  return -1;
}

}  // namespace nibble::math
