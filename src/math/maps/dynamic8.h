// SPDX-License-Identifier: Apache-2.0
// The 8-bit dynamic map (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR
// 2022, section 1.3; bitsandbytes' create_dynamic_map(signed, 7, 8)): seven decades below 1, the
// upper ones with more codes; inside a decade the values are evenly spaced. Also 0 and 1.
#pragma once

#include <algorithm>

#include "math/maps/code_map.h"

namespace nibble::math {

inline constexpr int kDynamic8Decades = 7;

// Codes in decade i (0 is the lowest), on one side of zero.
constexpr int dynamic8_decade_codes(bool is_signed, int decade) {
  return (is_signed ? 1 : 2) << decade;
}

namespace detail {

// Element j of linspace(0.1, 1, n + 1) as a float tensor library computes it: from the nearer end,
// with one rounding. The double sum below is exact, so its conversion is that one rounding.
constexpr float decade_edge(int n, int j) {
  const float step = (1.0F - 0.1F) / static_cast<float>(n);
  if (j < (n + 1) / 2) {
    return static_cast<float>(double{0.1F} + double{step} * j);
  }
  return static_cast<float>(1.0 - double{step} * (n - j));
}

constexpr CodeMap make_dynamic8(bool is_signed) {
  constexpr std::array<float, kDynamic8Decades> kPower = {1e-6F, 1e-5F, 1e-4F, 1e-3F,
                                                          1e-2F, 1e-1F, 1e0F};
  CodeMap map;
  std::size_t used = 0;
  map.value[used++] = 0.0F;
  map.value[used++] = 1.0F;
  for (int decade = 0; decade < kDynamic8Decades; ++decade) {
    const int n = dynamic8_decade_codes(is_signed, decade);
    for (int j = 0; j < n; ++j) {
      const float middle = (decade_edge(n, j) + decade_edge(n, j + 1)) / 2.0F;
      const float value = kPower[static_cast<std::size_t>(decade)] * middle;
      map.value[used++] = value;
      if (is_signed) {
        map.value[used++] = -value;
      }
    }
  }
  std::sort(map.value.begin(), map.value.end());
  map.zero = is_signed ? 127 : 0;
  map.is_signed = is_signed;
  fill_bounds(map);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kDynamic8Signed = detail::make_dynamic8(true);
inline constexpr CodeMap kDynamic8Unsigned = detail::make_dynamic8(false);

}  // namespace nibble::math
