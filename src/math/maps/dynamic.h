// SPDX-License-Identifier: Apache-2.0
// The dynamic map (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022,
// section 1.3; bitsandbytes' create_dynamic_map): decades below 1, the upper ones with more codes;
// inside a decade the values are evenly spaced. Also 0 and 1. With 8 bits there are seven decades,
// signed or unsigned; with 4 bits three, signed (Li et al., "Memory Efficient Optimizers with 4-bit
// States", NeurIPS 2023, there called DE).
#pragma once

#include "math/maps/code_map.h"

namespace nibble::math {

inline constexpr int kDynamic8Decades = 7;
inline constexpr int kDynamic4Decades = 3;

// Codes in decade i (0 is the lowest), on one side of zero.
constexpr int dynamic_decade_codes(bool is_signed, int decade) {
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

constexpr CodeMap make_dynamic(bool is_signed, int decades) {
  constexpr std::array<float, kDynamic8Decades> kPower = {1e-6F, 1e-5F, 1e-4F, 1e-3F,
                                                          1e-2F, 1e-1F, 1e0F};
  const float* power = kPower.data() + kDynamic8Decades - decades;
  CodeMap map;
  std::size_t used = 0;
  map.value[used++] = 0.0F;
  map.value[used++] = 1.0F;
  for (int decade = 0; decade < decades; ++decade) {
    const int n = dynamic_decade_codes(is_signed, decade);
    for (int j = 0; j < n; ++j) {
      const float middle = (decade_edge(n, j) + decade_edge(n, j + 1)) / 2.0F;
      const float value = power[decade] * middle;
      map.value[used++] = value;
      if (is_signed) {
        map.value[used++] = -value;
      }
    }
  }
  std::sort(map.value.begin(), map.value.begin() + used);
  map.levels = static_cast<int>(used);
  map.zero = is_signed ? map.levels / 2 - 1 : 0;
  map.is_signed = is_signed;
  fill_bounds(map);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kDynamic8Signed = detail::make_dynamic(true, kDynamic8Decades);
inline constexpr CodeMap kDynamic8Unsigned = detail::make_dynamic(false, kDynamic8Decades);
inline constexpr CodeMap kDynamic4Signed = detail::make_dynamic(true, kDynamic4Decades);

}  // namespace nibble::math
