// SPDX-License-Identifier: Apache-2.0
// The vocabulary of the rules for V = float. The SIMD classes (cpu/simd) offer the same names with
// the same results: every operation is correctly rounded.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

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

inline constexpr double kLog2High =
    0x1.62e42fefa38p-1;  // of log 2; its product with an int is exact
inline constexpr double kLog2Low = 0x1.ef35793c7673p-45;

// log x for finite x > 0 and exp x for finite x: within two units in the last place of a double,
// and, unlike a library's, the same bits on every host and device.
constexpr double log(double x) {
  constexpr double kTwoTo54 = 0x1p54;
  int exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= kTwoTo54;
    exponent = -54;
  }
  const auto bits = std::bit_cast<std::uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffU) | 0x3ff0000000000000U);  // [1, 2)
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  // log m = 2 artanh s, by its series: s^2 <= 0.0295.
  const double s = (m - 1.0) / (m + 1.0);
  const double square = s * s;
  double series = 0.0;
  for (int k = 23; k >= 3; k -= 2) {
    series = (series + 1.0 / k) * square;
  }
  return exponent * kLog2High + (exponent * kLog2Low + 2.0 * s * series + 2.0 * s);
}

constexpr double exp(double x) {
  constexpr double kLargest = 745.5;  // beyond it the result is 0 or infinite
  x = x < -kLargest ? -kLargest : (x > kLargest ? kLargest : x);
  const double turns = x * 1.4426950408889634;  // 1 / log 2
  const int n = static_cast<int>(turns < 0 ? turns - 0.5 : turns + 0.5);
  const double r = (x - n * kLog2High) - n * kLog2Low;  // |r| <= log(2) / 2
  double series = 1.0;
  for (int k = 14; k >= 1; --k) {
    series = 1.0 + series * r / k;
  }
  const auto power_of_two = [](int e) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(1023 + e) << 52);
  };
  return series * power_of_two(n / 2) * power_of_two(n - n / 2);
}

// To float, but never to infinity: a moment that overflowed would stay infinite. NaN stays.
constexpr float saturate(double x) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  return x > kLargest ? kLargest : static_cast<float>(x);
}

constexpr bool is_negative(float a) { return (std::bit_cast<std::uint32_t>(a) >> 31) != 0; }
constexpr bool is_finite_bits(std::uint32_t bits) { return (bits & 0x7fffffffU) < 0x7f800000U; }

}  // namespace nibble::math
