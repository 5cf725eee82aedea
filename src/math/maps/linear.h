// SPDX-License-Identifier: Apache-2.0
// Evenly spaced maps. 8 bits signed: code k is (k - 127) / 127, 255 codes; unsigned: k / 255.
// 4 bits unsigned without a zero: (k + 1) / 16 (Li et al., NeurIPS 2023, there called Linear).
#pragma once

#include "math/maps/code_map.h"

namespace nibble::math {
namespace detail {

constexpr CodeMap make_linear(bool is_signed, int levels, int below, int last) {
  CodeMap map;
  map.levels = levels;
  map.is_signed = is_signed;
  for (int k = 0; k < levels; ++k) {
    map.value[static_cast<std::size_t>(k)] =
        static_cast<float>(k - below) / static_cast<float>(last);
  }
  map.zero = std::max(below, 0);
  fill_bounds(map);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kLinear8Signed = detail::make_linear(true, 255, 127, 127);
inline constexpr CodeMap kLinear8Unsigned = detail::make_linear(false, 256, 0, 255);
inline constexpr CodeMap kLinear4Unsigned = detail::make_linear(false, 16, -1, 16);

}  // namespace nibble::math
