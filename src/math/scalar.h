// SPDX-License-Identifier: Apache-2.0
// The vocabulary of the rules for V = float. The SIMD classes (cpu/simd) offer the same names with
// the same results: every operation is correctly rounded.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace nibble::math {

NIBBLE_HD inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
NIBBLE_HD inline float sqrt(float a) { return std::sqrt(a); }
// b if either is NaN, as the processors' instruction has it.
constexpr float max(float a, float b) { return a > b ? a : b; }
// -1, 0 or 1; 0 for NaN.
constexpr float sign(float a) { return a > 0.0F ? 1.0F : (a < 0.0F ? -1.0F : 0.0F); }

// b^n for n >= 0, by squaring: the same bits on every host and device, unlike a library's pow. The
// relative error is about n times a double's rounding.
constexpr double power(double b, std::int64_t n) {
  double out = 1.0;
  for (; n > 0; n >>= 1) {
    out = (n & 1) != 0 ? out * b : out;
    b *= b;
  }
  return out;
}

constexpr bool is_negative(float a) { return (std::bit_cast<std::uint32_t>(a) >> 31) != 0; }
constexpr bool is_finite_bits(std::uint32_t bits) { return (bits & 0x7fffffffU) < 0x7f800000U; }

}  // namespace nibble::math
