// SPDX-License-Identifier: Apache-2.0
// The vocabulary of the rules for V = float. The SIMD classes (cpu/simd) offer the same names with
// the same results: every operation is correctly rounded.
#pragma once

#include <cmath>
#include <cstdint>

namespace nibble::math {

inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float sqrt(float a) { return std::sqrt(a); }
// b if either is NaN, as the processors' instruction has it.
inline float max(float a, float b) { return a > b ? a : b; }
// -1, 0 or 1; 0 for NaN.
inline float sign(float a) { return a > 0.0F ? 1.0F : (a < 0.0F ? -1.0F : 0.0F); }

inline bool is_finite_bits(std::uint32_t bits) { return (bits & 0x7fffffffU) < 0x7f800000U; }

}  // namespace nibble::math
