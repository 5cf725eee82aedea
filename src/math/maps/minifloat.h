// SPDX-License-Identifier: Apache-2.0
// Maps whose codes are sign and magnitude: FP8 E4M3 (Micikevicius et al., "FP8 Formats for Deep
// Learning", 2022: no infinities, NaN at 0x7f and 0xff, largest 448) and bitsandbytes' FP4.
#pragma once

#include "math/maps/code_map.h"

namespace nibble::math {
namespace detail {

// Bounds and codes by rank, from values by code. `order` lists the codes by ascending value.
constexpr void fill_ranks(CodeMap& map, const std::array<std::uint8_t, 256>& order, int levels) {
  map.levels = levels;
  for (std::size_t r = 0; r < 256; ++r) {
    const std::size_t last = static_cast<std::size_t>(levels) - 1;
    map.code[r] = order[std::min(r, last)];
    map.bound[r] = r < last ? (map.value[order[r]] + map.value[order[r + 1]]) / 2.0F
                            : std::numeric_limits<float>::infinity();
  }
  map.top = map.value[order[static_cast<std::size_t>(levels) - 1]];
}

constexpr float e4m3_value(int magnitude) {
  const int exponent = magnitude >> 3;
  const int mantissa = magnitude & 7;
  float value = exponent == 0 ? static_cast<float>(mantissa) : static_cast<float>(8 + mantissa);
  for (int e = std::max(exponent, 1); e < 10; ++e) {  // value * 2^(exponent - 10)
    value *= 0.5F;
  }
  for (int e = 10; e < exponent; ++e) {
    value *= 2.0F;
  }
  return value;
}

constexpr CodeMap make_e4m3(bool is_signed) {
  constexpr int kMagnitudes = 127;  // 0x7f is NaN
  CodeMap map;
  map.is_signed = is_signed;
  std::array<std::uint8_t, 256> order{};
  std::size_t used = 0;
  for (int m = kMagnitudes - 1; is_signed && m > 0; --m) {
    order[used++] = static_cast<std::uint8_t>(0x80 | m);
  }
  for (int m = 0; m < kMagnitudes; ++m) {
    order[used++] = static_cast<std::uint8_t>(m);
  }
  for (std::size_t m = 0; m < 128; ++m) {
    const float value =
        m < kMagnitudes ? e4m3_value(static_cast<int>(m)) : std::numeric_limits<float>::quiet_NaN();
    map.value[m] = value;
    map.value[m + 128] = -value;
  }
  fill_ranks(map, order, static_cast<int>(used));
  return map;
}

// 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4 by magnitude code. There are two zeros: bitsandbytes gives
// what is above 0 and nearest to it the code 8, what is 0 or below the code 0.
constexpr CodeMap make_fp4() {
  constexpr std::array<float, 8> kValues = {0.0F,        0.0052083333F, 0.66666669F, 1.0F,
                                            0.33333334F, 0.5F,          0.16666667F, 0.25F};
  constexpr std::array<std::uint8_t, 256> kOrder = {11, 10, 13, 12, 15, 14, 9, 0,
                                                    8,  1,  6,  7,  4,  5,  2, 3};
  CodeMap map;
  map.is_signed = true;
  for (std::size_t k = 0; k < 8; ++k) {
    map.value[k] = kValues[k];
    map.value[k + 8] = k == 0 ? 0.0F : -kValues[k];
  }
  fill_ranks(map, kOrder, 16);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kE4m3Signed = detail::make_e4m3(true);
inline constexpr CodeMap kE4m3Unsigned = detail::make_e4m3(false);
inline constexpr CodeMap kFp4 = detail::make_fp4();

}  // namespace nibble::math
